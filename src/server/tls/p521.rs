//! Private keys of the curve P-521, which ring does not have.
use std::sync::Arc;

use p521::SecretKey;
use p521::ecdsa::signature::Signer as _;
use p521::ecdsa::{DerSignature, SigningKey};
use p521::pkcs8::DecodePrivateKey;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, alg_id};
use tokio_rustls::rustls::sign::{self, Signer, public_key_to_spki};
use tokio_rustls::rustls::{Error, SignatureAlgorithm, SignatureScheme};

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP521_SHA512;

/// A private key, which is never logged.
#[derive(Clone, Debug)]
struct Key(Arc<SigningKey>);

/// Reads a private key, if it is one of this curve.
pub(crate) fn read(key: &PrivateKeyDer<'_>) -> Option<Arc<dyn sign::SigningKey>> {
    let key = match key {
        PrivateKeyDer::Pkcs8(key) => {
            SecretKey::from_pkcs8_der(key.secret_pkcs8_der()).ok()?
        }
        PrivateKeyDer::Sec1(key) => {
            SecretKey::from_sec1_der(key.secret_sec1_der()).ok()?
        }
        _ => return None,
    };
    Some(Arc::new(Key(Arc::new(key.into()))))
}

impl sign::SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = || -> Box<dyn Signer> { Box::new(self.clone()) };
        offered.contains(&SCHEME).then(signer)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let point = self.0.verifying_key().to_sec1_point(false);
        Some(public_key_to_spki(&alg_id::ECDSA_P521, point))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: DerSignature = self
            .0
            .try_sign(message)
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(signature.as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}
