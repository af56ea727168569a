//! Whose certificate that is: trust on first use.
//!
//! Certificates of the gateway are self-signed as a rule, so the first one that a server shows is
//! remembered, and another one later is refused. The file is the user's own: one line per server, host
//! and port as they were asked for, then the fingerprint.
//!
//! ```text
//!   vm1.example.com:902 sha256:5e88...d8
//! ```
//!
//! Not to be able to remember is an error: a first use that is never kept would accept everybody,
//! every time.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ops::ErrorCode;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::address::variable;
use crate::error::{Error, system_text};
use crate::params::Params;
use crate::wire::left;

/// Largest file that is taken for one of ours, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Pause between two looks at a lock that somebody else holds.
const PAUSE: Duration = Duration::from_millis(2);

/// The file with the certificates that were seen.
#[derive(Debug)]
pub(crate) struct KnownHosts {
    path: PathBuf,
}

impl KnownHosts {
    /// The file that the parameters name, or the user's own.
    ///
    /// # Errors
    /// -2 for a user without a home directory.
    pub fn of(params: &Params) -> Result<Self, Error> {
        let named = params.known_hosts.clone().or_else(|| variable("VMSERVERD_KNOWN_HOSTS"));
        let path = named.or_else(|| Some(home()?.join(".vmware/known_hosts")));
        path.map(|path| KnownHosts { path }).ok_or_else(|| {
            let text = "there is no home directory to keep the server's certificate in: name a file in \
                        VMSERVERD_KNOWN_HOSTS";
            Error::with(ErrorCode::NetFail, text)
        })
    }

    /// Accepts the certificate (DER) of a server: the one that is remembered, or the first one.
    ///
    /// # Errors
    /// -2 for another one than before, and when the first one cannot be remembered.
    pub fn check(&self, server: &str, certificate: &[u8], deadline: Instant) -> Result<(), Error> {
        let shown = fingerprint(certificate);
        let cannot = |error: &io::Error| {
            let detail = format_args!(
                "the certificate of {server} cannot be remembered in {}: {}. Make the file writable, or name \
                 another one in VMSERVERD_KNOWN_HOSTS",
                self.path.display(),
                system_text(error)
            );
            Error::with(ErrorCode::NetFail, detail)
        };
        let mut text = self.read().map_err(|error| cannot(&error))?;
        if find(&text, server).is_none() {
            let _lock = self.lock(deadline).map_err(|error| cannot(&error))?;
            // Somebody else may have been first.
            text = self.read().map_err(|error| cannot(&error))?;
            if find(&text, server).is_none() {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                text.push_str(&format!("{server} {shown}\n"));
                return self.replace(&text).map_err(|error| cannot(&error));
            }
        }
        match find(&text, server) {
            Some((_, known)) if known == shown => Ok(()),
            found => {
                let (line, known) = found.unwrap_or_default();
                let detail = format_args!(
                    "the certificate of {server} is not the one seen before: it was {known} and is {shown}. If \
                     the server was given a new certificate, remove line {line} of {} and connect again; \
                     otherwise somebody may be listening in",
                    self.path.display()
                );
                Err(Error::with(ErrorCode::NetFail, detail))
            }
        }
    }

    fn read(&self) -> io::Result<String> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(error),
            Ok(facts) if facts.len() > MAX_FILE => {
                return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
            }
            Ok(_) => {}
        }
        Ok(String::from_utf8_lossy(&fs::read(&self.path)?).into_owned())
    }

    /// One writer at a time, by a file beside.
    fn lock(&self, deadline: Instant) -> io::Result<File> {
        if let Some(directory) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let mut options = File::options();
        let file = options.create(true).append(true).mode(0o600).open(self.beside("lock"))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if left(deadline).is_zero() => {
                    return Err(io::Error::other("another program has it locked"));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Writes the file anew: whoever reads it sees the old or the new one, also after a crash.
    fn replace(&self, text: &str) -> io::Result<()> {
        let new = self.beside("new");
        // The lock is held: what is there was left by a process that was killed.
        let _ = fs::remove_file(&new);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }
}

fn home() -> Option<PathBuf> {
    use uzers::os::unix::UserExt;
    let user = || uzers::get_user_by_uid(rustix::process::geteuid().as_raw());
    variable("HOME").or_else(|| Some(user()?.home_dir().to_owned()))
}

/// Line number, counted from 1, and fingerprint of a server.
fn find<'a>(text: &'a str, server: &str) -> Option<(usize, &'a str)> {
    let mut lines = text.lines().zip(1..).map(|(line, number)| (number, line.split_ascii_whitespace()));
    lines.find_map(|(number, mut words)| match (words.next(), words.next()) {
        (Some(name), Some(known)) if name.eq_ignore_ascii_case(server) => Some((number, known)),
        _ => None,
    })
}

/// `sha256:` and the hash of a certificate in lower-case hex.
fn fingerprint(certificate: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    // The hash that TLS itself uses: no second implementation is needed for it.
    if let Some(suite) = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13() {
        for byte in suite.common.hash_provider.hash(certificate).as_ref() {
            text.push_str(&format!("{byte:02x}"));
        }
    }
    text
}

/// TLS 1.2 and 1.3; the server must hold the key of the certificate that it shows. Whose it is is asked
/// after the handshake, by [`KnownHosts::check`].
///
/// # Errors
/// -2 when the TLS library has no usable defaults.
pub(crate) fn tls_config() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|error| Error::with(ErrorCode::NetFail, format_args!("TLS: {error}")))?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(HoldsItsKey(provider)));
    Ok(Arc::new(config.with_no_client_auth()))
}

/// Checks signatures, not names and not issuers.
#[derive(Debug)]
struct HoldsItsKey(Arc<CryptoProvider>);

impl ServerCertVerifier for HoldsItsKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn the_first_certificate_is_kept_and_another_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let known = KnownHosts { path: directory.path().join("new/known_hosts") };
        known.check("a:902", b"first", soon()).unwrap();
        known.check("b:902", b"other", soon()).unwrap();
        known.check("A:902", b"first", soon()).unwrap();
        let error = known.check("b:902", b"first", soon()).unwrap_err();
        assert_eq!(error.code, ErrorCode::NetFail);
        for part in
            ["b:902", "remove line 2 of", "known_hosts", &fingerprint(b"first"), &fingerprint(b"other")]
        {
            assert!(error.text.contains(part), "{part} in {}", error.text);
        }
        let text = fs::read_to_string(&known.path).unwrap();
        assert_eq!(text, format!("a:902 {}\nb:902 {}\n", fingerprint(b"first"), fingerprint(b"other")));
    }

    #[test]
    fn the_fingerprint_is_the_usual_one() {
        assert_eq!(
            fingerprint(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn who_cannot_remember_does_not_trust() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let error = KnownHosts { path: path.join("below") }.check("a:902", b"x", soon()).unwrap_err();
        assert!(error.text.contains("VMSERVERD_KNOWN_HOSTS"), "{}", error.text);
    }

    #[test]
    fn many_at_once_lose_no_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known_hosts");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = path.clone();
                scope.spawn(move || {
                    KnownHosts { path }.check(&format!("h{number}:902"), b"x", soon()).unwrap();
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 16);
    }
}
