//! The gateway's certificate: made on the first start, read at every start and reload, replaced when an
//! administrator asks.
//!
//! `rui.crt` (mode 0444) and `rui.key` (mode 0400) are the product's names and modes. A new pair is
//! self-signed; the first one RSA 2048, ten years, for this host's name; clients of this protocol never
//! had a certificate authority.
//!
//! Two files cannot be replaced at once. What a crash leaves in between is told apart, and brought to an
//! end, by [`load_or_create`]:
//!
//! ```text
//!   write rui.crt.new ─▶ write rui.key.new ─▶ rename to rui.key ─▶ rename to rui.crt
//!       │                    │                    │
//!       │ rui.crt.new        │ both               │ rui.crt.new, which fits rui.key: the second
//!       ▼ does not fit       ▼                    ▼ rename is done now
//!       both are forgotten, the old pair is whole
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use link::layout::describe;
use link::product_config::replace_file;
use link::security::Certificate;
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustix::io::Errno;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

/// Mode of the certificate's file.
const PUBLIC: u32 = 0o444;
/// Mode of the key's file.
const PRIVATE: u32 = 0o400;

/// Certificate and key as read from disk.
#[derive(Clone)]
pub struct Pair {
    /// PEM, the chain.
    pub certificate: Vec<u8>,
    /// PEM, the key. Wiped when the pair is dropped.
    pub key: Zeroizing<Vec<u8>>,
    /// SHA-1 of the first certificate, upper-case hex pairs with colons: what `THUMBPRINT` answers.
    pub thumbprint: String,
}

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

/// What a new certificate is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    /// Common name; that of the host when absent.
    pub common_name: Option<String>,
    /// Days until it expires.
    pub days: u32,
    /// Bits of the RSA key: 2048, 3072 or 4096.
    pub bits: u32,
}

impl Default for New {
    fn default() -> Self {
        New { common_name: None, days: 3650, bits: 2048 }
    }
}

/// One at a time looks at the files, or changes them.
fn locked() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the pair, and makes it first when neither file exists. A replacement that a crash interrupted
/// is finished or forgotten before.
///
/// # Errors
/// When only one of the files exists, one cannot be read or written, or the key is not that of the
/// certificate; the text names the path and what to do.
pub fn load_or_create(files: &Files) -> io::Result<Pair> {
    let _locked = locked();
    let (certificate, key) = (files.certificate.as_path(), files.key.as_path());
    settle(files)?;
    match (certificate.exists(), key.exists()) {
        (false, false) => place(files, &make(&New::default())?)?,
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
    let read = |path: &Path| std::fs::read(path).map_err(|error| describe(&error, "cannot read", path));
    let (certificate_pem, key_pem) = (read(certificate)?, Zeroizing::new(read(key)?));
    let thumbprint = thumbprint(&certificate_pem).ok_or_else(|| {
        let text = format!("{} holds no PEM certificate", certificate.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })?;
    if let Err(error) = fit(&certificate_pem, &key_pem) {
        let text = format!("{} and {} are not used: {error}", certificate.display(), key.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Pair { certificate: certificate_pem, key: key_pem, thumbprint })
}

/// Makes a new pair and puts it in the place of the old one. Making an RSA key takes up to some seconds;
/// the files are changed in the last moment only.
///
/// # Errors
/// `AlreadyExists` when there are files and `overwrite` is false, with the path that is in the way; as
/// the system calls; the old pair is then still whole.
pub fn replace(files: &Files, new: &New, overwrite: bool) -> Result<(), (PathBuf, io::Error)> {
    let free = || match [&files.certificate, &files.key].into_iter().find(|path| path.exists()) {
        Some(path) if !overwrite => Err((path.clone(), Errno::EXIST.into())),
        _ => Ok(()),
    };
    let failed = |error| (files.certificate.clone(), error);
    free()?;
    let made = make(new).map_err(failed)?;
    let _locked = locked();
    settle(files).map_err(failed)?;
    free()?;
    place(files, &made).map_err(failed)
}

/// The facts of the first certificate.
///
/// # Errors
/// When it is none, for a human.
pub fn facts(file: &Path, pair: &Pair) -> Result<Certificate, String> {
    let der = CertificateDer::pem_slice_iter(&pair.certificate).next().and_then(Result::ok);
    let der = der.ok_or_else(|| format!("{} holds no PEM certificate", file.display()))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    Ok(Certificate::Facts {
        file: file.to_string_lossy().into_owned(),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        fingerprint: pair.thumbprint.clone(),
    })
}

/// A new certificate and its key, PEM.
struct Made {
    certificate: String,
    key: Zeroizing<String>,
}

/// Makes a self-signed pair.
fn make(new: &New) -> io::Result<Made> {
    let size = match new.bits {
        2048 => RsaKeySize::_2048,
        3072 => RsaKeySize::_3072,
        4096 => RsaKeySize::_4096,
        bits => return Err(io::Error::other(format!("a key of {bits} bits; there are 2048, 3072 and 4096"))),
    };
    let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).map_err(io::Error::other)?;
    let host = host_name();
    let name = new.common_name.clone().unwrap_or_else(|| host.clone());
    // A common name may be any text; what can be reached by a name has it here as well.
    let mut names = vec![host, "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if is_host_name(&name) || name.parse::<std::net::IpAddr>().is_ok() {
        names.insert(0, name.clone());
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "vmserverd");
    let now = SystemTime::now();
    let days = Duration::from_secs(u64::from(new.days) * 86_400);
    let end = now.checked_add(days).ok_or_else(|| io::Error::other("it would expire too late"))?;
    params.not_before = now.into();
    params.not_after = end.into();
    let signed = params.self_signed(&pair).map_err(io::Error::other)?;
    Ok(Made { certificate: signed.pem(), key: Zeroizing::new(pair.serialize_pem()) })
}

/// Puts a pair in its place; see the module about crashes.
fn place(files: &Files, made: &Made) -> io::Result<()> {
    let (certificate, key) = (beside(&files.certificate), beside(&files.key));
    let result = replace_file(&certificate, made.certificate.as_bytes(), PUBLIC)
        .and_then(|()| replace_file(&key, made.key.as_bytes(), PRIVATE))
        .and_then(|()| rename(&key, &files.key));
    if let Err(error) = result {
        // The old pair is whole; what is left of the new one is of no use.
        let _ = std::fs::remove_file(&key);
        let _ = std::fs::remove_file(&certificate);
        return Err(error);
    }
    rename(&certificate, &files.certificate)
}

/// Finishes or forgets a replacement that did not come to its end.
fn settle(files: &Files) -> io::Result<()> {
    let (certificate, key) = (beside(&files.certificate), beside(&files.key));
    if !key.exists() && certificate.exists() {
        let read = |path| std::fs::read(path).map(Zeroizing::new);
        let fits = read(&certificate).and_then(|crt| fit(&crt, &read(&files.key)?));
        if fits.is_ok() {
            return rename(&certificate, &files.certificate);
        }
    }
    for path in [&key, &certificate] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(describe(&error, "cannot remove", path));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The name of a file on its way.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// A rename that survives a power cut.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let renamed = std::fs::rename(from, to).and_then(|()| match to.parent() {
        Some(directory) => std::fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    });
    renamed.map_err(|error| describe(&error, "cannot write", to))
}

/// Whether a key is that of a certificate, both PEM.
fn fit(certificate: &[u8], key: &[u8]) -> io::Result<()> {
    let bad = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|error| bad(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad(&error))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(bad(&"the key is not that of the certificate")),
        Err(error) => Err(bad(&error)),
    }
}

/// The host's name, as far as it can stand in a certificate.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if is_host_name(&name) { name } else { "localhost".to_owned() }
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
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

    fn files(directory: &tempfile::TempDir) -> Files {
        Files { certificate: directory.path().join("rui.crt"), key: directory.path().join("rui.key") }
    }

    fn names(directory: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn openssl(files: &Files, arguments: &[&str]) -> String {
        let mut command = std::process::Command::new("openssl");
        let output = command.args(["x509", "-noout", "-in"]).arg(&files.certificate).args(arguments).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_pair_is_made_once_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        let first = load_or_create(&files).unwrap();
        let second = load_or_create(&files).unwrap();
        assert_eq!(first.certificate, second.certificate);
        assert_eq!(first.thumbprint.len(), 20 * 3 - 1);
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files.certificate), mode(&files.key)), (0o444, 0o400));
        // The reference implementation of the thumbprint.
        let text = openssl(&files, &["-fingerprint", "-sha1"]);
        assert_eq!(text.rsplit('=').next(), Some(first.thumbprint.as_str()));
        assert_eq!(names(&directory), ["rui.crt", "rui.key"]);
    }

    #[test]
    fn half_a_pair_is_an_error_that_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        let text = || load_or_create(&files).map(|_| ()).unwrap_err().to_string();
        std::fs::write(&files.certificate, "x").unwrap();
        assert!(text().contains("rui.key does not") && text().contains("restore"), "{}", text());
        std::fs::write(&files.key, "x").unwrap();
        assert!(text().contains("rui.crt holds no PEM certificate"), "{}", text());
    }

    #[test]
    fn a_replaced_pair_is_what_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        let old = load_or_create(&files).unwrap();
        let new = New { common_name: Some("lab.example".to_owned()), days: 36_500, bits: 3072 };
        let (path, error) = replace(&files, &new, false).unwrap_err();
        assert_eq!((path, error.raw_os_error()), (files.certificate.clone(), Some(17)));
        assert_eq!(load_or_create(&files).unwrap().certificate, old.certificate);

        replace(&files, &new, true).unwrap();
        let pair = load_or_create(&files).unwrap();
        assert_ne!(pair.thumbprint, old.thumbprint);
        let Certificate::Facts { file, subject, issuer, not_before, not_after, fingerprint } =
            facts(&files.certificate, &pair).unwrap();
        assert_eq!(file, files.certificate.to_str().unwrap());
        assert_eq!((subject.as_str(), issuer.as_str()), ("CN=lab.example, O=vmserverd", subject.as_str()));
        assert_eq!((not_after - not_before, fingerprint), (36_500 * 86_400, pair.thumbprint));
        // What another reader makes of it.
        assert!(openssl(&files, &["-text"]).contains("Public-Key: (3072 bit)"));
        assert!(openssl(&files, &["-ext", "subjectAltName"]).contains("DNS:lab.example"));
        assert_eq!(
            openssl(&files, &["-subject", "-nameopt", "RFC2253"]),
            "subject=O=vmserverd,CN=lab.example"
        );

        let any = New { common_name: Some("A lab, \"ours\" ä".to_owned()), ..New::default() };
        replace(&files, &any, true).unwrap();
        load_or_create(&files).unwrap();
        assert!(openssl(&files, &["-checkhost", "localhost"]).contains("does match"));
        assert_eq!(names(&directory), ["rui.crt", "rui.key"]);
    }

    #[test]
    fn a_crash_at_any_moment_leaves_a_whole_pair() {
        let old = make(&New::default()).unwrap();
        let new = make(&New::default()).unwrap();
        // Contents of rui.crt, rui.key, rui.crt.new, rui.key.new; and which pair it is then.
        let (o, n) = (&old, &new);
        let cut = &n.certificate[..100];
        let moments: [([Option<&str>; 4], Option<&Made>); 9] = [
            ([Some(&o.certificate), Some(&o.key), Some(cut), None], Some(o)),
            ([Some(&o.certificate), Some(&o.key), Some(&n.certificate), None], Some(o)),
            ([Some(&o.certificate), Some(&o.key), Some(&n.certificate), Some(&n.key[..50])], Some(o)),
            ([Some(&o.certificate), Some(&o.key), Some(&n.certificate), Some(&n.key)], Some(o)),
            ([Some(&o.certificate), Some(&n.key), Some(&n.certificate), None], Some(n)),
            ([Some(&n.certificate), Some(&n.key), None, None], Some(n)),
            // The first pair of all.
            ([None, None, Some(&n.certificate), None], None),
            ([None, None, Some(&n.certificate), Some(&n.key)], None),
            ([None, Some(&n.key), Some(&n.certificate), None], Some(n)),
        ];
        for (number, (contents, expected)) in moments.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let files = files(&directory);
            let paths = [&files.certificate, &files.key, &beside(&files.certificate), &beside(&files.key)];
            for (path, content) in paths.into_iter().zip(contents) {
                if let Some(content) = content {
                    std::fs::write(path, content).unwrap();
                }
            }
            let pair = load_or_create(&files).unwrap_or_else(|error| panic!("moment {number}: {error}"));
            if let Some(expected) = expected {
                assert_eq!(pair.certificate, expected.certificate.as_bytes(), "moment {number}");
            }
            assert_eq!(names(&directory), ["rui.crt", "rui.key"], "moment {number}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        load_or_create(&files).unwrap();
        std::fs::remove_file(&files.key).unwrap();
        std::fs::write(&files.key, make(&New::default()).unwrap().key.as_bytes()).unwrap();
        let text = load_or_create(&files).map(|_| ()).unwrap_err().to_string();
        assert!(text.ends_with("the key is not that of the certificate"), "{text}");
    }
}
