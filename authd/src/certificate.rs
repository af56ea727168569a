//! The gateway's certificate: made on the first start, read at every start and reload.
//!
//! `rui.crt` (mode 0444) and `rui.key` (mode 0400) are the product's names and modes. A new pair is
//! self-signed, RSA 2048, ten years, for this host's name; clients of this protocol never had a
//! certificate authority.

use std::io;
use std::path::Path;

use link::product_config::replace_file;
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Days a new certificate is valid.
pub const DAYS: u64 = 3650;

/// Certificate and key as read from disk.
#[derive(Clone)]
pub struct Pair {
    /// PEM, the chain.
    pub certificate: Vec<u8>,
    /// PEM, the key. Wiped when the pair is dropped.
    pub key: zeroize::Zeroizing<Vec<u8>>,
    /// SHA-1 of the first certificate, upper-case hex pairs with colons: what `THUMBPRINT` answers.
    pub thumbprint: String,
}

/// Reads the pair, and makes it first when neither file exists.
///
/// # Errors
/// When only one of the files exists, or one cannot be read or written; the text names the path and
/// what to do.
pub fn load_or_create(certificate: &Path, key: &Path) -> io::Result<Pair> {
    match (certificate.exists(), key.exists()) {
        (false, false) => create(certificate, key, &host_name())?,
        (true, true) => {}
        (there, _) => {
            let (there, missing) = if there { (certificate, key) } else { (key, certificate) };
            let text = format!(
                "{} exists but {} does not: restore the missing file, or remove the other to have a new pair made",
                there.display(),
                missing.display()
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
    }
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| link::layout::describe(&error, "cannot read", path))
    };
    let (certificate_pem, key_pem) = (read(certificate)?, zeroize::Zeroizing::new(read(key)?));
    let thumbprint = thumbprint(&certificate_pem).ok_or_else(|| {
        let text = format!("{} holds no PEM certificate", certificate.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })?;
    Ok(Pair { certificate: certificate_pem, key: key_pem, thumbprint })
}

/// Makes a self-signed pair. The key is in place before the certificate is.
fn create(certificate: &Path, key: &Path, host: &str) -> io::Result<()> {
    let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(io::Error::other)?;
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if host != "localhost" {
        names.insert(0, host.to_owned());
    }
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.distinguished_name.push(DnType::CommonName, host);
    params.distinguished_name.push(DnType::OrganizationName, "vmserverd");
    let now = std::time::SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + std::time::Duration::from_secs(DAYS * 86_400)).into();
    let signed = params.self_signed(&pair).map_err(io::Error::other)?;
    let key_pem = zeroize::Zeroizing::new(pair.serialize_pem());
    replace_file(key, key_pem.as_bytes(), 0o400)?;
    replace_file(certificate, signed.pem().as_bytes(), 0o444)
}

/// The host's name, as far as it can stand in a certificate.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let usable = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
    if usable { name } else { "localhost".to_owned() }
}

fn thumbprint(pem: &[u8]) -> Option<String> {
    let certificate = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &certificate);
    let pairs: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    Some(pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pair_is_made_once_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let (crt, key) = (directory.path().join("rui.crt"), directory.path().join("rui.key"));
        let first = load_or_create(&crt, &key).unwrap();
        let second = load_or_create(&crt, &key).unwrap();
        assert_eq!(first.certificate, second.certificate);
        assert_eq!(first.thumbprint.len(), 20 * 3 - 1);
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&crt), mode(&key)), (0o444, 0o400));
        // The reference implementation of the thumbprint.
        let output = std::process::Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha1", "-in"])
            .arg(&crt)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.trim().rsplit('=').next(), Some(first.thumbprint.as_str()));
    }

    #[test]
    fn half_a_pair_is_an_error_that_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let (crt, key) = (directory.path().join("rui.crt"), directory.path().join("rui.key"));
        std::fs::write(&crt, "x").unwrap();
        let text = load_or_create(&crt, &key).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("rui.key does not") && text.contains("restore"), "{text}");
        std::fs::write(&key, "x").unwrap();
        let text = load_or_create(&crt, &key).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("rui.crt holds no PEM certificate"), "{text}");
    }
}
