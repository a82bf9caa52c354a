"""Makes certificates with RSA keys in the current folder.

Each line of standard input is a JSON object: {"ca": NAME}, {"leaf": NAME, "ca": CA, "serial": N,
"days": N} or {"crl": FILE, "ca": CA, "revoked": [SERIAL...], "days": N}. "days" is the number of days until
the validity ends. With a negative number the validity has already ended. The script answers each line with
the line "done".
"""

import datetime
import json
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
# The start of the validity of all certificates and revocation lists.
EARLIER = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) - 400 * DAY
NOW = EARLIER + 400 * DAY


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def private(key):
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def read(ca):
    with open(f"{ca}.key", "rb") as file:
        key = serialization.load_pem_private_key(file.read(), None)
    with open(f"{ca}.crt", "rb") as file:
        return key, x509.load_pem_x509_certificate(file.read())


def certificate(subject, issuer, key, signer, serial, days, is_ca):
    made = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(issuer)
    made = made.public_key(key.public_key()).serial_number(serial)
    made = made.not_valid_before(EARLIER).not_valid_after(NOW + days * DAY)
    made = made.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    return made.sign(signer, hashes.SHA256())


def make(command):
    pem = serialization.Encoding.PEM
    if "crl" in command:
        key, ca = read(command["ca"])
        until = NOW + command["days"] * DAY
        made = x509.CertificateRevocationListBuilder().issuer_name(ca.subject)
        made = made.last_update(EARLIER).next_update(until)
        for serial in command["revoked"]:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(EARLIER)
            made = made.add_revoked_certificate(one.build())
        write(command["crl"], made.sign(key, hashes.SHA256()).public_bytes(pem))
        return
    key = rsa.generate_private_key(65537, 2048)
    if "leaf" in command:
        signer, ca = read(command["ca"])
        subject = command["leaf"]
        made = certificate(
            subject, ca.subject, key, signer, command["serial"], command["days"], False
        )
    else:
        subject = command["ca"]
        made = certificate(subject, name(subject), key, key, 1, 4000, True)
    write(f"{subject}.key", private(key))
    write(f"{subject}.crt", made.public_bytes(pem))


for line in sys.stdin:
    make(json.loads(line))
    print("done", flush=True)
