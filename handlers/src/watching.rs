//! Telling the core of machines whose .vmx somebody has changed.
//!
//! What this server changes it announces itself, with the keys. A change from outside is seen by the
//! watches of [`crate::known`], which stand for machines that this user has looked at; so while one of
//! his sessions waits for events, and from then on, what the watches show goes to the core:
//!
//! ```text
//!   kernel ── inotify ──▶ known: forgotten ──▶ looked at again ── another file, size or time? ──▶ core
//! ```
//!
//! It is looked at before it is compared, so that the next change is seen however soon it comes. The
//! core, which may hear of it from several users' processes, announces it once.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use ops::value::ConfigPath;

use crate::Ctx;
use crate::known::{CACHE, Mark};
use crate::machine::Machine;

/// Tells the core what the watches show, until it is dropped. What has been seen by then is told all the
/// same.
pub(crate) async fn report(ctx: &Ctx) -> Infallible {
    loop {
        let changed = CACHE.changes(&*ctx.core).await;
        let ctx = ctx.clone();
        tokio::spawn(async move {
            for (config, before) in changed {
                tell(&ctx, &config, before).await;
            }
        });
    }
}

/// Has these machines watched.
pub(crate) async fn watch(ctx: &Ctx, configs: Vec<ConfigPath>) {
    let user = ctx.user.clone();
    let look = move || {
        for config in configs {
            if CACHE.get(config.as_str()).is_none() {
                // One that cannot be read is no news to this user.
                let _ = CACHE.look(&user, &config);
            }
        }
    };
    // A fault there shows when it is looked at for its own sake.
    let _ = tokio::task::spawn_blocking(look).await;
}

async fn tell(ctx: &Ctx, config: &str, before: Mark) {
    let Ok(config) = ConfigPath::try_from(config.to_owned()) else { return };
    let user = ctx.user.clone();
    let look = move || -> Option<(ConfigPath, OwnedFd)> {
        CACHE.look(&user, &config).ok()?;
        let machine = Machine::open(&user, &config).ok()?;
        let other = Mark::of(&machine.metadata) != before;
        other.then(|| machine.descriptor().ok()).flatten().map(|file| (config, file))
    };
    if let Ok(Some((config, file))) = tokio::task::spawn_blocking(look).await {
        // One that is not registered any more, or a core that has gone: nobody is to be told.
        let _ = ctx.core.config_changed(config.as_str(), Vec::new(), file).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::Stage;
    use std::time::Duration;

    #[tokio::test]
    async fn a_change_from_outside_is_told_and_nothing_else_is() {
        let stage = Stage::new("config.version = \"8\"\n");
        // The directory may lie behind a link, where nothing is watched.
        let real = std::fs::canonicalize(stage.config.as_str()).unwrap();
        let config = ConfigPath::try_from(real.to_str().unwrap().to_owned()).unwrap();
        watch(&stage.ctx, vec![config.clone()]).await;
        let told = |count: usize| {
            let script = stage.script.clone();
            async move {
                while script.changed.lock().unwrap().len() < count {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        };
        let ctx = &stage.ctx;
        let both = |count| {
            let told = told(count);
            async move {
                tokio::select! {
                    never = report(ctx) => match never {},
                    () = told => {}
                    () = tokio::time::sleep(Duration::from_secs(10)) => panic!("nobody is told"),
                }
            }
        };
        // The first wait asks for it.
        tokio::select! {
            never = report(ctx) => match never {},
            () = tokio::task::yield_now() => {}
        }
        // Rights are no configuration; were they told, the count would be wrong below.
        stage.mode(0o755);
        std::fs::write(&real, "config.version = \"8\"\nmemsize = \"64\"\n").unwrap();
        both(1).await;
        std::fs::write(real.with_extension("new"), "memsize = \"128\"\n").unwrap();
        std::fs::rename(real.with_extension("new"), &real).unwrap();
        let before = stage.script.changed.lock().unwrap().len();
        both(before + 1).await;
        let changed = stage.script.changed.lock().unwrap();
        assert!(
            changed.iter().all(|(path, keys)| *path == config.as_str() && keys.is_empty()),
            "{changed:?}"
        );
    }
}
