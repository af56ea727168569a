//! `Security_*`: asked of the core, which asks the gateway. Only administrators come here; the table
//! says `rootonly`, and the core looks again.

use handlers_derive::handler;
use link::security::{Answer, Ask, Certificate as Known};
use ops::Error;
use ops::security::{
    ActivateConfig, ActivateConfigReply, Certificate, CreateCertificate, CreateCertificateReply, GetConfig,
    GetConfigReply,
};
use ops::value::Time;

use crate::{Ctx, Failure};

/// Longest common name in characters, as the standard for certificates has it.
const MAX_NAME: usize = 64;

/// What is encrypted, and with which certificate.
#[handler]
async fn get_config(ctx: &Ctx, _: GetConfig) -> Result<GetConfigReply, Failure> {
    let now = ask(ctx, Ask::Look {}).await?;
    Ok(GetConfigReply {
        console_ssl: now.console,
        management_ssl: now.management,
        certificate: now.certificate,
    })
}

/// Changes what is encrypted. The gateway has told its network process when it answers.
#[handler]
async fn activate_config(ctx: &Ctx, req: ActivateConfig) -> Result<ActivateConfigReply, Failure> {
    let now = ask(ctx, Ask::Activate { console: req.console_ssl, management: req.management_ssl }).await?;
    Ok(ActivateConfigReply {
        console_ssl: now.console,
        management_ssl: now.management,
        restart_required: false,
    })
}

/// Has a key and a certificate made.
#[handler]
async fn create_certificate(ctx: &Ctx, req: CreateCertificate) -> Result<CreateCertificateReply, Failure> {
    if let Some(name) = &req.common_name {
        let characters = name.chars().count();
        if !(1..=MAX_NAME).contains(&characters) || name.chars().any(char::is_control) {
            let reason = format!("must have 1 to {MAX_NAME} characters, none of them a control character");
            return Err(Error::invalid("commonName", reason).into());
        }
    }
    let bits = match u32::try_from(req.bits) {
        Ok(bits @ (2048 | 3072 | 4096)) => bits,
        _ => return Err(Error::invalid("bits", "must be 2048, 3072 or 4096").into()),
    };
    let wanted = Ask::CreateCertificate {
        common_name: req.common_name,
        // The declaration allows 1 to 36500.
        days: u32::try_from(req.days).unwrap_or(1),
        bits,
        overwrite: req.overwrite,
    };
    Ok(CreateCertificateReply { certificate: ask(ctx, wanted).await?.certificate })
}

/// What is in force.
struct Now {
    console: bool,
    management: bool,
    certificate: Certificate,
}

async fn ask(ctx: &Ctx, ask: Ask) -> Result<Now, Failure> {
    match ctx.core.security(ask).await? {
        Answer::Now { console, management, certificate } => {
            let Known::Facts { file, subject, issuer, not_before, not_after, fingerprint } = certificate.0;
            let (not_before, not_after) = (Time(not_before), Time(not_after));
            let certificate = Certificate { file, subject, issuer, not_before, not_after, fingerprint };
            Ok(Now { console, management, certificate })
        }
        Answer::Failed { errno: 0, text, .. } => Err(Error::unspecified(text).into()),
        Answer::Failed { path, errno, .. } => {
            Err(Error::file(path, &std::io::Error::from_raw_os_error(errno)).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::ctx;
    use ops::Fault;

    fn refused<T: std::fmt::Debug>(result: Result<T, Failure>) -> (i32, String) {
        match result {
            Err(Failure::Told(Fault::Refused(error))) => (error.code.number(), error.text),
            other => panic!("{other:?}"),
        }
    }

    fn request(name: Option<&str>, bits: i64, overwrite: bool) -> CreateCertificate {
        CreateCertificate { common_name: name.map(str::to_owned), days: 30, bits, overwrite }
    }

    #[tokio::test]
    async fn what_the_gateway_says_is_what_the_caller_reads() {
        let ctx = ctx();
        let now = get_config(&ctx, GetConfig {}).await.unwrap();
        assert_eq!((now.console_ssl, now.management_ssl), (true, true));
        assert_eq!(now.certificate.subject, "CN=fixed");
        let changed = ActivateConfig { console_ssl: Some(false), management_ssl: None };
        let now = activate_config(&ctx, changed).await.unwrap();
        assert_eq!((now.console_ssl, now.management_ssl, now.restart_required), (false, true, false));
        let made = create_certificate(&ctx, request(Some("a.example"), 4096, true)).await.unwrap();
        assert_eq!(made.certificate.subject, "CN=a.example");
        assert_eq!((made.certificate.not_before, made.certificate.not_after), (Time(0), Time(30 * 86_400)));
        assert_eq!(
            refused(create_certificate(&ctx, request(None, 2048, false)).await),
            (-999, "/fixed/rui.crt: File exists".to_owned())
        );
    }

    #[tokio::test]
    async fn what_no_certificate_can_have_is_refused_here() {
        let ctx = ctx();
        for bits in [2049, 2560, 4095] {
            let (code, text) = refused(create_certificate(&ctx, request(None, bits, true)).await);
            assert_eq!((code, text.as_str()), (-3, "Invalid argument: bits: must be 2048, 3072 or 4096"));
        }
        for name in ["", &"x".repeat(65), "a\nb"] {
            let (code, text) = refused(create_certificate(&ctx, request(Some(name), 2048, true)).await);
            assert!(code == -3 && text.starts_with("Invalid argument: commonName: "), "{text}");
        }
    }
}
