"""Signs each line of a file with the original fedmsg, in place: FOLDER CERTIFICATE FILE."""

import functools
import json
import sys

import fedmsg.crypto
import fedmsg.encoding
from cryptography.hazmat.primitives import serialization

# fedmsg loads the private key for each signature, and OpenSSL checks a loaded key. So the key is cached.
serialization.load_pem_private_key = functools.cache(serialization.load_pem_private_key)

folder, certificate, path = sys.argv[1:]
settings = {"ssldir": folder, "certname": certificate, "crypto_backend": "x509"}
with open(path) as file:
    signed = [fedmsg.encoding.dumps(fedmsg.crypto.sign(json.loads(line), **settings)) for line in file]
with open(path, "w") as file:
    file.writelines(line + "\n" for line in signed)
