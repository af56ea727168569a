//! F4: the process of a user's sessions is killed. Nobody else notices, its copies leave nothing, and the user's
//! next operation works.

use std::time::{Duration, Instant};

use tests::exec::Exec;
use tests::tasks::{begin, field, half_way, in_the_middle, names, tree, wait};
use tests::{Account, Caller, Setup, eventually, figures, need_root, process};

#[test]
fn a_killed_session_process_leaves_nothing_and_a_failed_task() {
    if !need_root("killing the session process of a user") {
        return;
    }
    let instance = Setup::new().start();
    let place = tree(&instance);
    let (mut worst_next, mut worst_gone) = (Duration::ZERO, Duration::ZERO);
    for from in ["tree", "tree/sub/disk"] {
        in_the_middle(&place, || {
            let mut exec = instance.exec();
            let task = begin(&mut exec, &place.join(from), &place.join("copy"));
            if half_way(&mut exec, &task).is_none() {
                return false;
            }
            process::kill(instance.session_of(0));
            let killed = Instant::now();
            // The user's next operation works, and the task has failed.
            let mut exec = instance.exec();
            assert_eq!(exec.inc(1), 2);
            let next = killed.elapsed();
            let end = wait(&mut exec, &task);
            if field(&end, "state") == "done" {
                return false;
            }
            assert_eq!(field(&end, "state"), "failed", "{}", end.text);
            eventually("what was half written is gone", || (names(&place) == ["tree"]).then_some(()));
            (worst_next, worst_gone) = (worst_next.max(next), worst_gone.max(killed.elapsed()));
            true
        });
    }
    figures::fact("F4", "until the user's next operation was answered", figures::ms(worst_next), "ms");
    figures::fact("F4", "until the half copy was gone", figures::ms(worst_gone), "ms");
}

#[test]
fn a_session_process_dies_and_only_its_user_notices() {
    if !need_root("a session process dies") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().tls().plain().start();
    let caller = Caller::new(crate::CALLER, &instance, &account);
    let mut other = instance.exec();
    for round in 0..5 {
        let mut sessions = [caller.unix(), caller.tcp(), instance.secure().login(&account)].map(|client| {
            if matches!(round % 2, 0) { client } else { client.patience(Duration::from_secs(20)) }
        });
        // The third has logged in by name already.
        let [unix, tcp, tls] = &mut sessions;
        assert!(unix.ask("LOCAL").starts_with("230 ") && tcp.ask("LOCAL").starts_with("230 "));
        for client in [unix, tcp, tls] {
            assert_eq!(client.ask("GLOBAL server"), "200 Connected to vmware-serverd.");
        }
        let mut sessions = sessions.map(Exec::new);
        for exec in &mut sessions {
            assert_eq!(exec.user(), account.name);
        }
        process::kill(instance.session_of(account.uid));
        for exec in &mut sessions {
            assert!(exec.client().closed());
        }
        assert_eq!(other.inc(round), round + 1);
        let mut next = caller.unix().local().server();
        assert_eq!(next.user(), account.name);
    }
}
