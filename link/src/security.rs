//! What the server core asks the gateway about encryption, which only the gateway knows anything of.
//!
//! ```text
//!   administrator's session ──▶ core ── Ask ──▶ gateway: files, certificate, new connections
//!                                    ◀─ Answer ─
//! ```
//!
//! Whether the asker may is the core's business. A key never travels.

use crate::wire::Inner;

crate::messages! {
    /// What is wanted.
    pub enum Ask {
        /// How is it now?
        1 = Look {},
        /// Change which ports are encrypted; what is absent stays as it is.
        2 = Activate {
            /// `security.host.ruissl`: the main port.
            console: Option<bool>,
            /// The web service.
            management: Option<bool>,
        },
        /// Make a new key and a certificate that it signs.
        3 = CreateCertificate {
            /// Common name; that of the host when absent.
            common_name: Option<String>,
            /// Days until it expires.
            days: u32,
            /// Bits of the RSA key.
            bits: u32,
            /// Whether files that exist are replaced.
            overwrite: bool,
        },
    }
}

crate::messages! {
    /// How it is then.
    pub enum Answer {
        /// This is in force for new connections.
        1 = Now {
            /// Whether the main port is encrypted.
            console: bool,
            /// Whether the web service is to be.
            management: bool,
            /// The certificate.
            certificate: Inner<Certificate>,
        },
        /// It was not done.
        2 = Failed {
            /// The file that it failed on; empty where it was none.
            path: String,
            /// The system's number; 0 where `text` says all.
            errno: i32,
            /// Why.
            text: String,
        },
    }
}

crate::messages! {
    /// A certificate.
    pub enum Certificate {
        /// Its facts.
        1 = Facts {
            /// Path of its file.
            file: String,
            /// Whose it is.
            subject: String,
            /// Who signed it.
            issuer: String,
            /// Unix seconds.
            not_before: i64,
            /// Unix seconds.
            not_after: i64,
            /// SHA-1 as upper-case hex pairs with colons.
            fingerprint: String,
        },
    }
}
