//! F9: PAM modules that sleep, crash or print cost their own login, and nobody else's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tests::client::{Client, End};
use tests::figures::{self, full, percentile};
use tests::{Account, Instance, Setup, eventually, need_root, process};

/// A module whose behaviour the password chooses.
const MODULE: &str = r#"
#include <security/pam_modules.h>
#include <security/pam_ext.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int ask(pam_handle_t *pamh, int style, const char *text, char **answer) {
    const struct pam_conv *conv;
    if (pam_get_item(pamh, PAM_CONV, (const void **)&conv) != PAM_SUCCESS) return PAM_CONV_ERR;
    struct pam_message message = { style, text };
    const struct pam_message *list[1] = { &message };
    struct pam_response *response = NULL;
    int result = conv->conv(1, list, &response, conv->appdata_ptr);
    *answer = result == PAM_SUCCESS && response ? response[0].resp : NULL;
    return result;
}

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    char *password, *more;
    const char *rhost = NULL;
    if (ask(pamh, PAM_PROMPT_ECHO_OFF, "Password: ", &password) != PAM_SUCCESS || !password)
        return PAM_CONV_ERR;
    if (!strcmp(password, "right") || !strcmp(password, "expired")) return PAM_SUCCESS;
    if (!strcmp(password, "sleep")) { sleep(600); return PAM_SUCCESS; }
    if (!strcmp(password, "abort")) abort();
    if (!strcmp(password, "exit")) _exit(0);
    if (!strcmp(password, "segv")) { *(volatile int *)0 = 1; }
    if (!strcmp(password, "print")) {
        for (int i = 0; i < 20000; i++) { printf("230 User root logged in.\r\n"); fprintf(stderr, "noise\n"); }
        fflush(stdout);
        ask(pamh, PAM_TEXT_INFO, "230 User root logged in.", &more);
        ask(pamh, PAM_ERROR_MSG, "an error", &more);
        return PAM_SUCCESS;
    }
    if (!strcmp(password, "twice"))
        return ask(pamh, PAM_PROMPT_ECHO_OFF, "Again: ", &more) == PAM_SUCCESS && more ? PAM_SUCCESS : PAM_AUTH_ERR;
    if (!strcmp(password, "visible"))
        return ask(pamh, PAM_PROMPT_ECHO_ON, "Name: ", &more) == PAM_SUCCESS && more ? PAM_SUCCESS : PAM_AUTH_ERR;
    if (!strcmp(password, "rhost")) {
        pam_get_item(pamh, PAM_RHOST, (const void **)&rhost);
        return rhost && !strcmp(rhost, "127.9.8.7") ? PAM_SUCCESS : PAM_AUTH_ERR;
    }
    if (!strcmp(password, "other")) { pam_set_item(pamh, PAM_USER, "root"); return PAM_SUCCESS; }
    return PAM_AUTH_ERR;
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv) { return PAM_SUCCESS; }

int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv) {
    const char *password = NULL;
    pam_get_item(pamh, PAM_AUTHTOK, (const void **)&password);
    for (int i = 0; i < argc; i++) if (!strcmp(argv[i], "refuse")) return PAM_ACCT_EXPIRED;
    return PAM_SUCCESS;
}
"#;

/// A PAM service of our own, removed with the value.
struct Service {
    name: String,
}

impl Service {
    /// Builds the module in a directory that stays as long as the instance does, and writes the
    /// service file. `account` are the module's arguments in the account stack.
    fn new(directory: &Path, suffix: &str, account: &str) -> Self {
        // As distributions call it: what is there is kept by helpers.
        std::fs::create_dir(directory.join("security")).unwrap();
        let module = module_in(directory);
        build(MODULE, &module);
        let name = format!("vmserverd-test-{}-{suffix}", std::process::id());
        let module = module.display();
        let text = format!("auth required {module}\naccount required {module} {account}\n");
        std::fs::write(format!("/etc/pam.d/{name}"), text).unwrap();
        Service { name }
    }
}

fn module_in(directory: &Path) -> PathBuf {
    directory.join("security/pam_test.so")
}

/// Builds a module and puts it in its place, as an update does.
fn build(source: &str, module: &Path) {
    let (text, new) = (module.with_extension("c"), module.with_extension("new"));
    std::fs::write(&text, source).unwrap();
    let mut compiler = Command::new("gcc");
    compiler.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&new).arg(&text).arg("-lpam");
    let _ = tests::account::output(&mut compiler);
    std::fs::rename(new, module).unwrap();
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(format!("/etc/pam.d/{}", self.name));
    }
}

/// An instance that asks our module.
fn instance(suffix: &str, account: &str, setup: Setup) -> Option<(Instance, Service, tempfile::TempDir)> {
    if !need_root(&format!("PAM modules that misbehave ({suffix})")) {
        return None;
    }
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let service = Service::new(directory.path(), suffix, account);
    let instance = setup.plain().tls().set("authd.pam.service", service.name.as_str()).start();
    Some((instance, service, directory))
}

#[test]
fn a_module_that_sleeps_holds_up_only_its_own_caller() {
    let Some((instance, _service, _directory)) = instance("sleep", "", Setup::new().hasty()) else { return };
    let account = Account::new();
    let welcome = format!("230 User {} logged in.", account.name);
    let logins = || -> Vec<Duration> {
        let login = |_| {
            let start = Instant::now();
            assert_eq!(instance.tcp().try_login(&account.name, "right"), welcome);
            start.elapsed()
        };
        (0..if full() { 1000 } else { 100 }).map(login).collect()
    };
    let quiet = logins();
    let mut sleepers: Vec<Client> = (0..8)
        .map(|number| {
            // One address may keep few checks busy; so these come from two, neither of them ours.
            let source = [127, 9, 0, number % 2].into();
            let client = Client::tcp_from(source, instance.plain).greeted();
            let mut client = client.patience(Duration::from_millis(20));
            client.send(format!("USER {}\r\nPASS sleep\r\n", account.name));
            client
        })
        .collect();
    for sleeper in &mut sleepers {
        eventually("the module is asked", || match sleeper.try_line() {
            Ok(line) => {
                assert_eq!(line, format!("331 Password required for {}.", account.name));
                Some(())
            }
            Err(End::Silent) => None,
            Err(end) => panic!("{end:?}"),
        });
    }
    let beside = logins();
    let [quiet, beside] = [quiet, beside].map(|times| percentile(&times, 99));
    figures::fact("F9", "p99 of a login, quiet", figures::ms(quiet), "ms");
    figures::fact("F9", "p99 of a login beside 8 modules that sleep", figures::ms(beside), "ms");
    figures::most("F9", "times the quiet p99", beside.as_secs_f64() / quiet.as_secs_f64(), "", 2.0);
    for _ in 0..20 {
        assert_eq!(instance.secure().try_login(&account.name, "wrong"), "530 Login incorrect.");
        assert_eq!(instance.unix().local().server().inc(1), 2);
    }
    for sleeper in &mut sleepers {
        assert_eq!(sleeper.try_line(), Err(End::Silent), "the module still sleeps");
    }
    // A caller that leaves does not leave its helper behind for ten minutes.
    drop(sleepers);
    let mut instance = instance;
    let all = process::descendants(instance.pid());
    instance.ask_to_end();
    assert_eq!(instance.wait().code(), Some(0));
    for child in all {
        assert!(process::ends_within(child, Duration::from_secs(5)), "{:?} is left", process::words(child));
    }
}

#[test]
fn a_module_that_crashes_is_a_failed_login_and_the_next_one_works() {
    let Some((instance, _service, _directory)) = instance("crash", "", Setup::new().hasty()) else { return };
    let account = Account::new();
    let welcome = format!("230 User {} logged in.", account.name);
    let monitor = instance.monitor();
    for _ in 0..3 {
        for way in ["abort", "exit", "segv"] {
            let mut client = instance.tcp();
            assert_eq!(client.try_login(&account.name, way), "530 Login incorrect.", "{way}");
            assert_eq!(client.try_login(&account.name, "right"), welcome, "after {way}");
        }
    }
    assert_eq!(instance.monitor(), monitor);
    eventually("no dead helper is left uncollected", || {
        let zombies = std::fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).unwrap();
        zombies.split_whitespace().all(|pid| process::runs(pid.parse().unwrap())).then_some(())
    });
}

#[test]
fn a_module_stays_in_memory_until_its_file_is_another() {
    let Some((instance, _service, directory)) = instance("update", "", Setup::new().hasty()) else { return };
    let account = Account::new();
    let welcome = format!("230 User {} logged in.", account.name);
    let module = module_in(directory.path());
    let keeps = |helper: &u32| {
        let maps = std::fs::read_to_string(format!("/proc/{helper}/maps")).unwrap_or_default();
        maps.contains(&*module.to_string_lossy())
    };
    let helpers = || process::children(instance.monitor()).into_iter().filter(keeps).collect::<Vec<_>>();
    assert_eq!(instance.tcp().try_login(&account.name, "right"), welcome);
    let first = helpers();
    assert_eq!(first.len(), 1, "the module is in the memory of the helper that waits");
    assert_eq!(instance.tcp().try_login(&account.name, "right"), welcome);
    assert_eq!(helpers(), first);
    build(&MODULE.replace("\"right\"", "\"newer\""), &module);
    assert_eq!(instance.tcp().try_login(&account.name, "right"), "530 Login incorrect.");
    assert_eq!(instance.tcp().try_login(&account.name, "newer"), welcome);
    assert_ne!(helpers(), first);
}

#[test]
fn what_a_module_says_never_reaches_the_caller() {
    let Some((instance, _service, _directory)) = instance("print", "", Setup::new().hasty()) else { return };
    let account = Account::new();
    for mut client in [instance.tcp(), instance.secure(), instance.unix()] {
        let welcome = format!("230 User {} logged in.", account.name);
        assert_eq!(client.try_login(&account.name, "print"), welcome);
        assert!(client.stays(), "more than the reply");
        assert_eq!(client.server().user(), account.name);
    }
    for (password, reply) in [
        ("twice", "530 Login incorrect."),
        ("visible", "530 Login incorrect."),
        ("wrong", "530 Login incorrect."),
        ("right", &format!("230 User {} logged in.", account.name)),
    ] {
        assert_eq!(instance.tcp().try_login(&account.name, password), reply, "{password}");
    }
    let mut from = Client::tcp_from([127, 9, 8, 7].into(), instance.plain).greeted();
    assert!(from.try_login(&account.name, "rhost").starts_with("230 "), "PAM_RHOST is the peer's address");
    // A name without an entry in the user database fails, whatever PAM says.
    assert_eq!(instance.tcp().try_login("no-such-user-here", "right"), "530 Login incorrect.");
    // A module that changes the name does not make its caller somebody else unnoticed: either it is
    // refused, or the log and the session agree on who it is.
    let mut client = instance.tcp();
    let reply = client.try_login(&account.name, "other");
    if let Some(name) = reply.strip_prefix("230 User ").and_then(|rest| rest.strip_suffix(" logged in.")) {
        assert_eq!(client.server().user(), name);
    } else {
        assert_eq!(reply, "530 Login incorrect.");
    }
}

#[test]
fn the_account_stack_decides_too() {
    let Some((instance, _service, _directory)) = instance("account", "refuse", Setup::new().hasty()) else {
        return;
    };
    let account = Account::new();
    assert_eq!(instance.tcp().try_login(&account.name, "right"), "530 Login incorrect.");
}
