//! `Security_*`: whether connections are encrypted, and with which certificate.

use ops_derive::{Fragment, Op, Reply};

use crate::value::Time;

/// The certificate that callers of the encrypted port see.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Certificate {
    /// Path of the file.
    pub file: String,
    /// Whose it is: its distinguished name.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Valid from.
    #[field(name = "notBefore")]
    pub not_before: Time,
    /// Valid until.
    #[field(name = "notAfter")]
    pub not_after: Time,
    /// SHA-1 of the certificate in the form of the gateway's `THUMBPRINT` answer.
    pub fingerprint: String,
}

/// Tells which connections are encrypted, and with which certificate.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "Security_GetConfig", handler = "SecurityEdit::GetConfig_Handler",
     access = RootOnly, runs = Core, effect = Reads, reply = GetConfigReply)]
pub struct GetConfig {}

/// The policy and the certificate.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetConfigReply {
    /// Whether the main port (902) is encrypted: `security.host.ruissl`.
    #[field(name = "consoleSsl")]
    pub console_ssl: bool,
    /// Whether the web service is to be encrypted. This server has none; the value is kept for those
    /// that ask for it.
    #[field(name = "managementSsl")]
    pub management_ssl: bool,
    /// The certificate in use.
    pub certificate: Certificate,
}

/// Changes which connections are encrypted.
///
/// In force for new connections when the reply is sent; connections that exist stay as they are.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "Security_ActivateConfig", handler = "SecurityEdit::ActivateConfig_Handler",
     access = RootOnly, runs = Core, effect = Changes, reply = ActivateConfigReply)]
pub struct ActivateConfig {
    /// Whether the main port (902) is encrypted; unchanged when absent.
    #[field(name = "consoleSsl")]
    pub console_ssl: Option<bool>,
    /// Whether the web service is to be encrypted; unchanged when absent.
    #[field(name = "managementSsl")]
    pub management_ssl: Option<bool>,
}

/// The policy now.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ActivateConfigReply {
    /// Whether the main port is encrypted.
    #[field(name = "consoleSsl")]
    pub console_ssl: bool,
    /// Whether the web service is to be encrypted.
    #[field(name = "managementSsl")]
    pub management_ssl: bool,
    /// Whether something must be started again for that: never.
    #[field(name = "restartRequired")]
    pub restart_required: bool,
}

/// Makes a new certificate for the encrypted port, signed by itself.
///
/// New connections see it when the reply is sent; connections that exist stay as they are. The key
/// never leaves the host, and only root can read it.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "Security_CreateCertificate", handler = "SecurityEdit::CreateCertificate_Handler",
     access = RootOnly, runs = Core, effect = Changes, reply = CreateCertificateReply)]
pub struct CreateCertificate {
    /// The name in it, at most 64 characters; the host's name when absent.
    #[field(name = "commonName")]
    pub common_name: Option<String>,
    /// Days until it expires.
    #[field(default = "3650", min = 1, max = 36500)]
    pub days: i64,
    /// Size of the RSA key: 2048, 3072 or 4096.
    #[field(default = "2048", min = 2048, max = 4096)]
    pub bits: i64,
    /// Whether a certificate and a key that exist are replaced.
    #[field(default = "0")]
    pub overwrite: bool,
}

/// The new certificate.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct CreateCertificateReply {
    /// The certificate now in use.
    pub certificate: Certificate,
}
