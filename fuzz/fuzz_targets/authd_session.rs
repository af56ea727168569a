//! The whole dialogue before the hand-over, in virtual time, against a monitor that answers as the
//! input says. Nobody is ever let in without a positive answer, every reply is one line, and the
//! machine never asks two questions at once.
#![no_main]

use std::time::Duration;

use authd_dialogue::dialogue::{Dialogue, Question, Reservation, Rules, Step};
use authd_dialogue::reply::{BANNER_PLAIN, MAX_REPLY};
use libfuzzer_sys::fuzz_target;

fn check_reply(text: &[u8]) {
    assert!(text.len() <= MAX_REPLY, "reply of {} bytes", text.len());
    let line = text.strip_suffix(b"\r\n").expect("a reply ends its line");
    assert!(!line.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')), "one line only");
    assert!(line.len() > 4 && line[..3].iter().all(u8::is_ascii_digit) && line[3] == b' ');
}

fuzz_target!(|input: &[u8]| {
    // The first bytes steer the monitor's answers, one bit each; the rest is what the caller sends.
    let Some((steer, mut input)) = input.split_at_checked(4) else {
        return;
    };
    let mut steer = u32::from_le_bytes(steer.try_into().unwrap_or_default());
    let mut bit = || {
        let bit = steer & 1 == 1;
        steer = steer.rotate_right(1);
        bit
    };
    let rules = Rules {
        banner: BANNER_PLAIN,
        line_max: 512,
        login_deadline: Duration::from_secs(30),
        idle: Duration::from_secs(300),
        thumbprint: "00:11".into(),
        serverd_path: "/usr/sbin/vmware-serverd".into(),
    };
    let mut dialogue = Dialogue::new(&rules, bit());
    let mut now = Duration::ZERO;
    let mut proven = false;
    let mut step = dialogue.next(&rules);
    loop {
        step = match step {
            Step::Reply(text) => {
                check_reply(&text);
                dialogue.next(&rules)
            }
            Step::Close(text, _) => {
                check_reply(&text);
                return;
            }
            Step::HandOver { reply, early } => {
                check_reply(&reply);
                assert!(proven, "handed over without a login");
                assert!(early.len() <= 512 + 256 + 2);
                return;
            }
            Step::Ask(question) => {
                assert_eq!(dialogue.deadline(), None, "a question stops the clock");
                now += Duration::from_secs(1);
                let yes = bit();
                match question {
                    Question::Password { name, password } => {
                        assert!(!name.is_empty() && name.len() <= 256);
                        let yes = yes && password.is_some_and(|password| !password.is_empty());
                        proven = yes;
                        dialogue.login_answer(&rules, now, yes.then_some(&name[..]))
                    }
                    Question::Local => {
                        proven = yes;
                        dialogue.login_answer(&rules, now, yes.then_some(b"local"))
                    }
                    Question::Confirm => {
                        assert!(proven);
                        dialogue.confirm_answer(&rules, now, yes)
                    }
                    Question::Reserve | Question::Connect { .. } => {
                        assert!(proven, "a session was reserved without a login");
                        if let Question::Connect { config, .. } = &question {
                            assert!(config.starts_with('/') && config.len() <= 512);
                        }
                        let answer = match (yes, bit(), bit()) {
                            (true, _, _) => Reservation::Granted,
                            (false, true, true) => Reservation::Refused,
                            (false, false, true) => Reservation::Unreachable,
                            (false, true, false) => Reservation::NotRegistered,
                            (false, false, false) => Reservation::Busy,
                        };
                        dialogue.reserve_answer(&rules, now, answer)
                    }
                }
            }
            Step::Read => {
                assert_eq!(dialogue.logged_in(), proven);
                let deadline = dialogue.deadline().expect("somebody who reads has a deadline");
                assert!(deadline <= now + rules.idle);
                let Some((&size, rest)) = input.split_first() else {
                    check_reply(match &dialogue.expired() {
                        Step::Close(text, _) => text,
                        other => panic!("{other:?}"),
                    });
                    return;
                };
                let (piece, rest) = rest.split_at(usize::from(size).min(rest.len()));
                input = rest;
                dialogue.received(&rules, now, piece);
                dialogue.next(&rules)
            }
        };
    }
});
