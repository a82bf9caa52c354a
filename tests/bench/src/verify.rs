//! The RSA operation that verifies a signature, and nothing around it.

use std::time::Instant;

use anyhow::{Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
};

use crate::body::body;

/// Verifies a signature with a key that is kept, and returns the seconds.
pub(crate) fn verify(messages: u32) -> Result<f64> {
    let (key, body) = (KeyPair::generate(KeySize::Rsa2048)?, body());
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), body.as_bytes(), &mut signature)?;
    let public = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref())
        .map_err(|error| anyhow!("the key is refused: {error}"))?;
    let start = Instant::now();
    for _ in 0..messages {
        public.verify_sig(body.as_bytes(), &signature)?;
    }
    Ok(start.elapsed().as_secs_f64())
}
