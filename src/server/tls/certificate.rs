//! The certificate of the server and its private key, as files have them.
use std::path::Path;
use std::time::Duration;

use p521::pkcs8::der::asn1::{AnyRef, BitStringRef, GeneralizedTime, UintRef, UtcTime};
use p521::pkcs8::der::{self, Decode, Reader, SliceReader, Tag, TagNumber};
use p521::pkcs8::spki::SubjectPublicKeyInfo;
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::p521 as p521_key;

/// The byte order mark that editors on Windows put in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How the version of a certificate is marked, which one of version 1 lacks.
const VERSION: Tag = Tag::ContextSpecific {
    constructed: true,
    number: TagNumber(0),
};

/// A certificate chain with the private key of its first certificate.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) chain: CertifiedKey,
    /// When the first certificate expires, since 1970.
    pub(crate) ends: Duration,
}

/// The facts about a certificate that are reported.
struct Facts<'a> {
    ends: Duration,
    /// The public key with its kind, as it is written.
    key: &'a [u8],
}

/// Reads a certificate chain up to a certificate that clients trust, and the
/// private key of the first certificate, all in PEM. They may be in one file.
///
/// The requirements of rustls for the certificates of other hosts do not apply
/// here. The client judges the certificate, for example one of X.509 v1.
///
/// # Errors
///
/// The error names the fault, the file and the remedy.
pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Certificate, String> {
    let certificate_name = format!("the certificate '{}'", certificate.display());
    let key_name = format!("the private key '{}'", key.display());
    let pem = read_pem(certificate, &certificate_name)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(&certificate_name, "CERTIFICATE", &error))?;
    let Some(first) = chain.first() else {
        let error = PemError::NoItemsFound;
        return Err(unreadable(&certificate_name, "CERTIFICATE", &error));
    };
    let Facts { ends, key: public } =
        know(first).map_err(|error| format!("{certificate_name}: {error}"))?;
    let pem = read_pem(key, &key_name)?;
    // Both forms that openssl writes contain this word.
    if pem.windows(9).any(|word| word == b"ENCRYPTED") {
        return Err(format!(
            "{key_name} is encrypted, and the server cannot ask for the password: \
             decrypt it with `openssl pkey`"
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| unreadable(&key_name, "PRIVATE KEY", &error))?;
    let key = any_supported_type(&key)
        .ok()
        .or_else(|| p521_key::read(&key))
        .ok_or_else(|| {
            format!(
                "{key_name} cannot be used, because {certificate_name} has {}, and \
                 the server needs RSA of 2048 to 4096 bits with the exponent 65537, \
                 P-256, P-384, P-521 or Ed25519: make a key and a certificate of \
                 one of these, or let a reverse proxy speak TLS",
                kind(public),
            )
        })?;
    let belongs_to = |public: &[u8]| key.public_key().is_none_or(|key| *key == *public);
    if !belongs_to(public) {
        let mut later = chain.iter().skip(1).filter_map(|other| know(other).ok());
        let order = if later.any(|other| belongs_to(other.key)) {
            ", but to a later one in the same file: put that one first"
        } else {
            ""
        };
        return Err(format!(
            "{key_name} does not belong to {certificate_name}{order}"
        ));
    }
    Ok(Certificate {
        ends,
        chain: CertifiedKey::new(chain, key),
    })
}

fn read_pem(path: &Path, name: &str) -> Result<Vec<u8>, String> {
    let text = std::fs::read(path)
        .map_err(|error| format!("{name} cannot be read: {error}"))?;
    match &*text {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(format!(
            "{name} is a text in UTF-16: save it in ASCII or UTF-8"
        )),
        [0x30, 0x80..=0x84, ..] => Err(format!(
            "{name} is not in PEM, but in DER or PKCS#12: convert it with \
             `openssl x509`, `openssl pkey` or `openssl pkcs12`"
        )),
        _ => Ok(without_marks(&text)),
    }
}

/// A text without byte order marks. They are also in the middle of a file that
/// was put together of several.
fn without_marks(text: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        lines.extend_from_slice(line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line));
    }
    lines
}

fn unreadable(name: &str, label: &str, error: &PemError) -> String {
    match error {
        PemError::NoItemsFound => {
            format!(
                "{name}: the file has no line '-----BEGIN {label}-----'; name a \
                 file in PEM"
            )
        }
        PemError::MissingSectionEnd { end_marker } => format!(
            "{name}: the file has no line '-----END {}-----'; it is not complete",
            String::from_utf8_lossy(end_marker),
        ),
        PemError::Base64Decode(_) => format!(
            "{name}: the text between a line BEGIN and a line END is not base64; \
             the file is damaged"
        ),
        error => format!("{name}: {error}"),
    }
}

/// Reads a certificate of any version (RFC 5280, section 4.1).
fn know(certificate: &[u8]) -> der::Result<Facts<'_>> {
    let mut reader = SliceReader::new(certificate)?;
    reader.sequence(|certificate| {
        let known = certificate.sequence(|fields| {
            if Tag::peek(fields)? == VERSION {
                let _version = fields.tlv_bytes()?;
            }
            for _field in ["serial number", "signature", "issuer"] {
                fields.tlv_bytes()?;
            }
            let ends = fields.sequence(|validity| {
                let _begins = validity.tlv_bytes()?;
                time(validity)
            })?;
            let _subject = fields.tlv_bytes()?;
            let key = fields.tlv_bytes()?;
            rest(fields)?;
            Ok::<_, der::Error>(Facts { ends, key })
        })?;
        rest(certificate)?;
        Ok::<_, der::Error>(known)
    })
}

fn time(reader: &mut SliceReader<'_>) -> der::Result<Duration> {
    match Tag::peek(reader)? {
        Tag::UtcTime => UtcTime::decode(reader).map(|time| time.to_unix_duration()),
        _ => GeneralizedTime::decode(reader).map(|time| time.to_unix_duration()),
    }
}

fn rest(reader: &mut SliceReader<'_>) -> der::Result<()> {
    while !reader.is_finished() {
        reader.tlv_bytes()?;
    }
    Ok(())
}

/// The kind of a public key, in words.
fn kind(public: &[u8]) -> String {
    let Ok(key) =
        SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(public)
    else {
        return "a key that cannot be read".to_owned();
    };
    let curve = key
        .algorithm
        .parameters_oid()
        .map(|curve| curve.to_string());
    let name = match &*key.algorithm.oid.to_string() {
        "1.2.840.113549.1.1.1" => {
            let bits = modulus_bits(key.subject_public_key.raw_bytes());
            return format!("an RSA key of {} bits", bits.unwrap_or(0));
        }
        "1.2.840.10045.2.1" => match curve.as_deref() {
            Ok("1.3.132.0.10") => "secp256k1",
            Ok("1.3.132.0.33") => "P-224",
            Ok("1.2.840.10045.3.1.7") => "P-256",
            Ok("1.3.132.0.34") => "P-384",
            Ok("1.3.132.0.35") => "P-521",
            Ok("1.3.36.3.3.2.8.1.1.7") => "brainpoolP256r1",
            Ok("1.3.36.3.3.2.8.1.1.11") => "brainpoolP384r1",
            Ok("1.3.36.3.3.2.8.1.1.13") => "brainpoolP512r1",
            Ok(curve) => return format!("a key of the elliptic curve {curve}"),
            Err(_) => "explicit curve parameters",
        },
        "1.2.840.113549.1.1.10" => "RSA-PSS",
        "1.2.840.10040.4.1" => "DSA",
        "1.3.101.112" => "Ed25519",
        "1.3.101.113" => "Ed448",
        other => return format!("a key of the algorithm {other}"),
    };
    format!("a key of the kind {name}")
}

fn modulus_bits(key: &[u8]) -> der::Result<usize> {
    let mut reader = SliceReader::new(key)?;
    reader.sequence(|fields| {
        let modulus = UintRef::decode(fields)?;
        rest(fields)?;
        let bytes = modulus.as_bytes();
        let zeros = bytes
            .first()
            .map_or(0, |byte| byte.leading_zeros() as usize);
        Ok(bytes.len() * 8 - zeros)
    })
}
