"""Signs and verifies messages with the original fedmsg.

Each line of standard input is a JSON object. The key "do" names a function of this file, and the other
keys are the arguments. The answer is a line of JSON. The argument of the program is the folder with the
keys, certificates and lists, which `authority.py` makes.
"""

import base64
import functools
import json
import logging
import os
import sys
import time

import fedmsg.crypto
import fedmsg.crypto.utils
import fedmsg.crypto.x509_ng
import fedmsg.encoding
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

FOLDER = sys.argv[1]
# fedmsg loads the private key for each signature, and OpenSSL checks a loaded key. So the keys are cached.
serialization.load_pem_private_key = functools.cache(serialization.load_pem_private_key)


def path(name):
    return name and os.path.join(FOLDER, name)


def config(ca, crl, policy, nitpicky):
    return {
        "ssldir": FOLDER,
        "ca_cert_location": path(ca),
        "crl_location": path(crl),
        "routing_policy": policy,
        "routing_nitpicky": nitpicky,
        "crypto_backend": "x509",
        "crypto_validate_backends": ["x509"],
    }


def sign(text, name, legacy=False):
    """Signs a body, with `legacy` as fedmsg did up to 0.7.2. Returns None if the text is not JSON."""
    try:
        message = json.loads(text)
    except ValueError:
        return None
    settings = {"ssldir": FOLDER, "certname": name, "crypto_backend": "x509"}
    if not legacy:
        return fedmsg.encoding.dumps(fedmsg.crypto.sign(message, **settings))
    with open(path(name + ".key"), "rb") as file:
        key = serialization.load_pem_private_key(file.read(), None)
    content = fedmsg.encoding.dumps(message).encode()
    signature = key.sign(content, padding.PKCS1v15(), hashes.SHA1())
    message["signature"] = base64.encodebytes(signature).decode()
    message["certificate"] = field(name + ".crt")
    return fedmsg.encoding.dumps(message)


def field(name):
    """Returns the text of a file as it is written in the field `certificate`."""
    with open(path(name), "rb") as file:
        return base64.b64encode(file.read()).decode()


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def validate(text, ca="ca.crt", crl="crl.pem", policy={}, nitpicky=False):
    try:
        verdict = fedmsg.crypto.validate(json.loads(text), **config(ca, crl, policy, nitpicky))
    except Exception as error:
        return type(error).__name__
    return "accepted" if verdict else "refused"


def canonical(texts):
    return [_canonical(text) for text in texts]


def _canonical(text):
    try:
        return fedmsg.encoding.dumps(json.loads(text))
    except (ValueError, RecursionError):
        return None


def without_datagrepper(text):
    fixed = fedmsg.crypto.utils.fix_datagrepper_message(json.loads(text))
    return fedmsg.encoding.dumps(fixed)


def seconds(text, count):
    """Returns the processor time of one validation, in seconds. Parsing the JSON is not included."""
    message = json.loads(text)
    settings = config("ca.crt", "crl.pem", {}, False)
    start = time.process_time()
    for _ in range(count):
        assert fedmsg.crypto.validate(message, **settings)
    return (time.process_time() - start) / count


def main():
    logging.disable(logging.CRITICAL)
    functions = [sign, field, encoded, validate, canonical, without_datagrepper, seconds]
    by_name = {function.__name__: function for function in functions}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        print(json.dumps(by_name[arguments.pop("do")](**arguments)), flush=True)


main()
