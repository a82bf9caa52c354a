"""Makes valid and invalid CAs, certificates and revocation lists in the folder given as argument.

Valid certificates are like those of Fedora: RSA keys of 1024 bits, signed with SHA-1.
"""

import base64
import datetime
import os
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

FOLDER = sys.argv[1]
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
SHA1, SHA256 = hashes.SHA1(), hashes.SHA256()
# The last byte of the object identifier of RSA with each hash algorithm (1.2.840.113549.1.1.x).
ALGORITHMS = {"md5": 4, "sha1": 5, "sha224": 14, "sha256": 11, "sha384": 12, "sha512": 13}
RSA_WITH = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01"


def key(bits=1024):
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def name(*common_names, unit="fedmsg"):
    parts = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)]
    parts += [x509.NameAttribute(NameOID.COMMON_NAME, common_name) for common_name in common_names]
    return x509.Name(parts)


def write(file, content):
    with open(os.path.join(FOLDER, file), "wb") as out:
        out.write(content)


def write_pem(file, der, label):
    text = base64.encodebytes(der)
    write(file, b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, text, label))


def resign(made, content, signer, digest):
    """Returns the DER form of a certificate or CRL after signing it with another algorithm.

    The package `cryptography` no longer signs with SHA-1. All algorithm identifiers have the same
    length, so they can be replaced.
    """
    old, new = (RSA_WITH + bytes([ALGORITHMS[name]]) for name in ("sha256", digest.name))
    signed = content.replace(old, new)
    der = made.public_bytes(serialization.Encoding.DER).replace(content, signed).replace(old, new)
    return der.replace(made.signature, signer.sign(signed, padding.PKCS1v15(), digest))


def first_version(der, signer):
    """Converts a certificate without extensions to version 1 and signs it."""
    # The header of the certificate has four bytes, the header of its signed part four, and the version five.
    length = int.from_bytes(der[6:8], "big")
    content = sequence(der[13 : 8 + length])
    algorithm = sequence(RSA_WITH + bytes([ALGORITHMS["sha1"]]) + b"\x05\x00")
    signature = b"\x00" + signer.sign(content, padding.PKCS1v15(), SHA1)
    return sequence(content + algorithm + b"\x03\x81" + bytes([len(signature)]) + signature)


def sequence(content):
    length = len(content)
    if length < 128:
        return bytes([0x30, length]) + content
    return b"\x30\x82" + length.to_bytes(2, "big") + content


def write_key(file, private):
    form = serialization.PrivateFormat.TraditionalOpenSSL
    write(file, private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def basic(is_ca):
    return (x509.BasicConstraints(ca=is_ca, path_length=None), True)


def usage(certificates, lists):
    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    names += " encipher_only decipher_only"
    others = {name: False for name in names.split()}
    return (x509.KeyUsage(key_cert_sign=certificates, crl_sign=lists, **others), True)


def unknown(critical):
    oid = ObjectIdentifier("1.3.6.1.4.1.55555.1")
    return (x509.UnrecognizedExtension(oid, b"\x04\x00"), critical)


class CA:
    def __init__(self, file, subject, start=-DAY, end=3650 * DAY, bits=1024, extensions=(), issuer=None,
                 private=None, bare=False):
        self.key = private or key(bits)
        self.subject = subject
        self.certificate = certificate(
            self.key.public_key(), subject, issuer or subject, self.key, 1, start, end, SHA1,
            list(extensions) if bare else [basic(True), *extensions],
        )
        write_pem(file, self.certificate, b"CERTIFICATE")

    def leaf(self, file, subject, serial, start=-DAY, end=365 * DAY, bits=1024, digest=SHA1, extensions=(),
             private=None, public=None, signed_by=None, issuer=None):
        private = private or key(bits)
        made = certificate(
            public or private.public_key(), subject, issuer or self.subject, signed_by or self.key,
            serial, start, end, digest, extensions,
        )
        write_pem(file + ".crt", made, b"CERTIFICATE")
        write_key(file + ".key", private)

    def crl(self, file, serials, start=-DAY, end=30 * DAY, digest=SHA1, signed_by=None, issuer=None,
            extensions=(), entry_extensions=()):
        builder = x509.CertificateRevocationListBuilder(issuer or self.subject, NOW + start, NOW + end)
        for serial in serials:
            entry = x509.RevokedCertificateBuilder(serial, NOW - DAY)
            for extension, critical in entry_extensions:
                entry = entry.add_extension(extension, critical)
            builder = builder.add_revoked_certificate(entry.build())
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        signer = signed_by or self.key
        made = builder.sign(signer, SHA256)
        write_pem(file, resign(made, made.tbs_certlist_bytes, signer, digest), b"X509 CRL")


def certificate(public, subject, issuer, signer, serial, start, end, digest, extensions):
    builder = (
        x509.CertificateBuilder()
        .public_key(public)
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(serial)
        .not_valid_before(NOW + start)
        .not_valid_after(NOW + end)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    made = builder.sign(signer, SHA256)
    return resign(made, made.tbs_certificate_bytes, signer, digest)


def identifier(private):
    return x509.SubjectKeyIdentifier.from_public_key(private.public_key())


def make_leafs(ca):
    subject = name("good.example.org")
    ca.leaf("good", subject, 0x10)
    ca.leaf("second", name("second.example.org"), 0x11, digest=SHA256)
    ca.leaf("large", name("large.example.org"), 0x12, bits=2048, digest=hashes.SHA512())
    ca.leaf("revoked", name("revoked.example.org"), 0x20)
    ca.leaf("high-serial", name("high.example.org"), 0xFF)
    ca.leaf("expired", name("expired.example.org"), 0x13, start=-30 * DAY, end=-DAY)
    ca.leaf("future", name("future.example.org"), 0x14, start=DAY)
    ca.leaf("nameless", x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x")]), 0x15)
    ca.leaf("two-names", name("first.example.org", "good.example.org"), 0x16)
    ca.leaf("bad-name", name("good.example.org\n"), 0x17)
    ca.leaf("elliptic", subject, 0x18, public=ec.generate_private_key(ec.SECP256R1()).public_key())
    ca.leaf("critical", subject, 0x19, extensions=[unknown(True)])
    ca.leaf("uncritical", subject, 0x1A, extensions=[
        unknown(False), basic(False), usage(True, False),
        (x509.SubjectAlternativeName([x509.DNSName("good.example.org")]), True),
    ])
    ca.leaf("useless", subject, 0x25, extensions=[usage(False, False)])
    ca.leaf("forged", subject, 0x1B, signed_by=key())
    # The authority key identifier is the identifier of another key.
    ca.leaf("other-hint", subject, 0x1C, extensions=[
        (x509.AuthorityKeyIdentifier(b"x" * 20, None, None), False),
    ])
    ca.leaf("other-serial-hint", subject, 0x1D, extensions=[
        (x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(ca.subject)], 99), False),
    ])
    ca.leaf("good-hint", subject, 0x1E, extensions=[
        (x509.AuthorityKeyIdentifier(identifier(ca.key).digest, [x509.DirectoryName(ca.subject)], 1), False),
    ])
    ca.leaf("md5", subject, 0x24, digest=hashes.MD5())
    ca.leaf("sha224", subject, 0x1F, digest=hashes.SHA224())
    ca.leaf("sha384", subject, 0x21, digest=hashes.SHA384())
    # This is an intermediate CA, and a certificate that the intermediate CA signed.
    between = key()
    ca.leaf("between", name("between"), 0x22, private=between, extensions=[basic(True)])
    ca.leaf("below", subject, 0x23, signed_by=between, issuer=name("between"))


def main():
    private = key()
    ca = CA("ca.crt", name("ca"), private=private, extensions=[(identifier(private), False)])
    write_key("ca.key", ca.key)
    make_leafs(ca)
    ca.crl("crl.pem", [0x20, 0xFF])
    ca.crl("crl-more.pem", [0x10, 0x20])
    ca.crl("crl-empty.pem", [])
    ca.crl("crl-expired.pem", [0x20], start=-30 * DAY, end=-DAY)
    ca.crl("crl-future.pem", [0x20], start=DAY)
    ca.crl("crl-of-ca.pem", [1])
    ca.crl("crl-forged.pem", [0x20], signed_by=key())
    ca.crl("crl-of-other.pem", [0x20], issuer=name("other"))
    ca.crl("crl-critical.pem", [0x20], extensions=[unknown(True)])
    ca.crl("crl-entry-critical.pem", [0x20], entry_extensions=[unknown(True)])
    ca.crl("crl-uncritical.pem", [0x20], extensions=[(x509.CRLNumber(7), False)],
           entry_extensions=[(x509.CRLReason(x509.ReasonFlags.key_compromise), False)])
    ca.crl("crl-delta.pem", [0x20], extensions=[(x509.DeltaCRLIndicator(1), True)])
    # This CA has the same name as the first one and another key.
    double = CA("ca-double.crt", name("ca"))
    double.leaf("of-double", name("good.example.org"), 0x10)
    other = CA("ca-other.crt", name("other"), bits=2048)
    other.leaf("of-other", name("good.example.org"), 0x10, digest=hashes.SHA384())
    CA("ca-expired.crt", name("ca"), start=-30 * DAY, end=-DAY, private=ca.key)
    CA("ca-future.crt", name("ca"), start=DAY, private=ca.key)
    plain = CA("ca-no-basic.crt", name("ca"), private=ca.key, bare=True)
    write_pem("ca-first-version.crt", first_version(plain.certificate, ca.key), b"CERTIFICATE")
    CA("ca-not-ca.crt", name("ca"), private=ca.key, extensions=[basic(False)], bare=True)
    CA("ca-critical.crt", name("ca"), private=ca.key, extensions=[unknown(True)])
    CA("ca-below.crt", name("ca"), private=ca.key, issuer=name("root"))
    CA("ca-no-certificates.crt", name("ca"), private=ca.key, extensions=[usage(False, True)])
    CA("ca-no-lists.crt", name("ca"), private=ca.key, extensions=[usage(True, False)])
    permitted = x509.NameConstraints([x509.DNSName("example.org")], None)
    CA("ca-constraints.crt", name("ca"), private=ca.key, extensions=[(permitted, True)])
    short = os.path.join(FOLDER, "ca.crt")
    with open(short, "rb") as first, open(os.path.join(FOLDER, "ca-other.crt"), "rb") as second:
        first, second = first.read(), second.read()
    write("ca-two.crt", b"Certificate:\n    Data:\n" + first + second)
    write("ca-two-reversed.crt", second + first)
    write("ca.der", ca.certificate)


main()
