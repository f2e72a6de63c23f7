//! Signatures of Standard Webhooks 1.0: HMAC-SHA-256 over `{id}.{timestamp}.{body}`; pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use ring::hmac::{Context, HMAC_SHA256, Key};

use crate::secret::Secret;

/// What a signing secret begins with when people see it.
pub const PREFIX: &str = "whsec_";

/// Bytes of a secret, decoded: from 192 to 512 bits.
pub const SECRET_BYTES_MIN: usize = 24;
/// See [`SECRET_BYTES_MIN`].
pub const SECRET_BYTES_MAX: usize = 64;

/// Bytes of a secret that is made here: as many as its hash has.
const SECRET_BYTES: usize = 32;

/// The version of a signature.
const VERSION: &str = "v1";

/// A text that is no signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `whsec_` and the base64 of 24 to 64 bytes")]
pub struct InvalidSecret;

/// What an endpoint's webhooks are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningSecret(Secret);

impl SigningSecret {
    /// A fresh one.
    pub fn random(random: &mut impl Rng) -> Self {
        let mut bytes = vec![0; SECRET_BYTES];
        random.fill_bytes(&mut bytes);
        Self(Secret::new(bytes))
    }

    /// Reads what [`text`](Self::text) has written; without the prefix, too.
    ///
    /// # Errors
    ///
    /// It is not base64, too short or too long.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).unwrap_or(text);
        let bytes = STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
        Self::from_bytes(Secret::new(bytes))
    }

    /// Takes its bytes.
    ///
    /// # Errors
    ///
    /// They are too few or too many.
    pub fn from_bytes(bytes: Secret) -> Result<Self, InvalidSecret> {
        let is_fine = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.expose().len());
        if is_fine { Ok(Self(bytes)) } else { Err(InvalidSecret) }
    }

    /// Its bytes, to be sealed.
    pub fn bytes(&self) -> &Secret {
        &self.0
    }

    /// As receivers are told it.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.0.expose()))
    }

    /// One signature.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = Context::with_key(&Key::new(HMAC_SHA256, self.0.expose()));
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("{VERSION},{}", STANDARD.encode(context.sign()))
    }
}

/// The value of `webhook-signature`: a signature by each secret, the newest first, so that a receiver
/// that has not learnt of a rotation yet finds one that it knows.
pub fn signatures(secrets: &[SigningSecret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let signed: Vec<String> =
        secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect();
    signed.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// The vectors of the standard's own libraries and of its best known implementation.
    const KNOWN: &[(&str, &str, u64, &str, &str)] = &[
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_plJ3nmyCDGBKInavdOK15jsl",
            "msg_loFOjxBNrRLzqYUf",
            1_731_705_121,
            r#"{"event_type":"ping","data":{"success":true}}"#,
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        ),
    ];

    /// The second vector's secret has 18 bytes: older than the standard's rule.
    fn secret(text: &str) -> SigningSecret {
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX).unwrap()).unwrap();
        SigningSecret(Secret::new(bytes))
    }

    #[test]
    fn known_webhooks_are_signed_as_known() {
        for (text, id, timestamp, body, expected) in KNOWN {
            assert_eq!(secret(text).sign(id, *timestamp, body.as_bytes()), *expected);
        }
        assert!(SigningSecret::parse(KNOWN[0].0).is_ok());
        assert_eq!(SigningSecret::parse(KNOWN[1].0), Err(InvalidSecret));
    }

    #[test]
    fn during_a_rotation_there_is_a_signature_by_each_secret() {
        let secrets: Vec<_> = KNOWN.iter().map(|known| secret(known.0)).collect();
        let (_, id, timestamp, body, first) = KNOWN[0];
        let header = signatures(&secrets, id, timestamp, body.as_bytes());
        let parts: Vec<&str> = header.split(' ').collect();
        assert_eq!((parts.len(), parts[0]), (2, first));
        assert_eq!(parts[1], secrets[1].sign(id, timestamp, body.as_bytes()));
    }

    #[test]
    fn a_secret_has_24_to_64_bytes() {
        for (length, is_valid) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
            let text = format!("{PREFIX}{}", STANDARD.encode(vec![7; length]));
            assert_eq!(SigningSecret::parse(&text).is_ok(), is_valid, "{length}");
        }
        for text in ["", "whsec_", "whsec_!", "whsk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(SigningSecret::parse(text), Err(InvalidSecret), "{text}");
        }
    }

    #[test]
    fn a_fresh_secret_reads_back() {
        let mut random = StdRng::seed_from_u64(7);
        let (first, second) =
            (SigningSecret::random(&mut random), SigningSecret::random(&mut random));
        assert_ne!(first, second);
        assert_eq!(SigningSecret::parse(&first.text()), Ok(first));
    }
}
