//! Connections over socket pairs, inside one process.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use handlers::registered::Registered;
use handlers::running::{EventBatch, Metrics, Running};
use handlers::tasks::{NewTask, Status, Work};
use handlers::{Answer, Caller, ConnectedUser, Core, Ctx, Failure, User};
use hypervisor::control::{FromVmx, State, ToVmx};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};

use super::connection::{self, MAX_STALL, MAX_WAITING};
use super::server::Server;
use crate::figures::{Figures, WORDS};

/// A core whose answer to the request count comes when the test lets it: a slow request. The list
/// of machines panics: a broken handler.
struct TestCore {
    allowed: Semaphore,
}

impl Core for TestCore {
    fn settled(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }
    fn request_count(&self) -> Answer<'_, u64> {
        Box::pin(async {
            self.allowed.acquire().await.map_err(|error| Failure::internal("waiting", error))?.forget();
            Ok(6)
        })
    }

    fn connected_vms(&self) -> Answer<'_, Vec<String>> {
        Box::pin(async { panic!("as ordered") })
    }
    // Nothing of the rest is asked in these tests.
    fn start_task(&self, _: NewTask, _: Work) -> Answer<'_, u64> {
        nothing()
    }
    fn task(&self, _: u64) -> Answer<'_, Status> {
        nothing()
    }
    fn stop_task(&self, _: u64) -> Answer<'_, Status> {
        nothing()
    }
    fn delete_task(&self, _: u64) -> Answer<'_, ()> {
        nothing()
    }
    fn tasks(&self, _: bool) -> Answer<'_, Vec<Status>> {
        nothing()
    }
    fn registered(&self) -> Answer<'_, Arc<Registered>> {
        nothing()
    }
    fn security(&self, _: link::security::Ask) -> Answer<'_, link::security::Answer> {
        nothing()
    }
    fn register(&self, _: &str, _: bool, _: OwnedFd) -> Answer<'_, ()> {
        nothing()
    }
    fn unregister(&self, _: &str, _: bool, _: OwnedFd) -> Answer<'_, ()> {
        nothing()
    }
    fn used_by_others(
        &self,
        _: &str,
        _: Vec<(u64, u64)>,
    ) -> Answer<'_, std::collections::HashSet<(u64, u64)>> {
        nothing()
    }
    fn attach(&self, _: u64, _: &str, _: bool, _: OwnedFd) -> Answer<'_, ()> {
        nothing()
    }
    fn connected_users(&self, _: &str, _: OwnedFd) -> Answer<'_, Vec<ConnectedUser>> {
        nothing()
    }
    fn running(&self) -> Answer<'_, Arc<BTreeMap<String, Running>>> {
        nothing()
    }
    fn start_machine(&self, _: &str, _: OwnedFd) -> Answer<'_, State> {
        nothing()
    }
    fn ask_machine(&self, _: &str, _: OwnedFd, _: ToVmx) -> Answer<'_, Vec<FromVmx>> {
        nothing()
    }
    fn wait_for_events(&self, _: Option<(u64, u64)>, _: Duration, _: u32) -> Answer<'_, EventBatch> {
        nothing()
    }
    fn metrics(&self) -> Answer<'_, Metrics> {
        nothing()
    }
    fn readable(&self, _: OwnedFd) -> Answer<'_, ()> {
        nothing()
    }
    fn host(&self) -> Option<hypervisor::control::HostClass> {
        None
    }
    fn config_changed(&self, _: &str, _: Vec<String>, _: OwnedFd) -> Answer<'_, ()> {
        nothing()
    }
}

fn nothing<T>() -> Answer<'static, T> {
    Box::pin(async { Err(Failure::internal("asking the core", "this core knows nothing")) })
}

struct Fixture {
    server: Rc<Server>,
    ctx: Ctx,
    core: Arc<TestCore>,
    counter: Figures,
}

impl Fixture {
    fn new() -> Self {
        let counter = Figures::new((0..WORDS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().leak());
        let core = Arc::new(TestCore { allowed: Semaphore::new(0) });
        let user = User {
            name: "alice".into(),
            uid: 1000,
            gid: 1000,
            groups: vec![1000],
            home: "/".into(),
            admin: false,
        };
        let caller = Caller {
            user,
            product_number: 4,
            product: ops::Product::default(),
            historic_bugs: false,
            layout: link::Layout::new(Some(std::path::Path::new("/nowhere"))).unwrap(),
            event_logs: "/nowhere".into(),
            core: core.clone(),
        };
        Fixture {
            server: Server::new(handlers::link().unwrap(), counter, super::audit::Audit::off()),
            ctx: Ctx::new(Arc::new(caller), 1),
            core,
            counter,
        }
    }

    /// A new connection; the client's end of it.
    fn connect(&self, early: &[u8]) -> UnixStream {
        let (client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let server = OwnedFd::from(server);
        spawn_local(connection::serve(&self.server, self.ctx.clone(), server, early));
        UnixStream::from_std(client).unwrap()
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Fixture) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { test(Fixture::new()).await });
}

fn inc(number: i64) -> String {
    format!("<exec><op>inc</op><in><number>{number}</number></in></exec>")
}

const COUNT: &str = "<exec><op>VMServerd_GetRequestCount</op></exec>";
const BROKEN: &str = "<exec><op>VMServerd_GetConnectedVMList</op></exec>";
const TABLE: &str = "<exec><op>VMServerd_GetOperationTable</op><in><details>1</details></in></exec>";

/// Reads to the end of the stream.
async fn rest(client: &mut UnixStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

/// Reads one reply, up to its line end.
async fn reply(client: &mut UnixStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"</exec>\n") {
        text.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

/// The numbers in the replies, in order.
fn numbers(text: &str) -> Vec<i64> {
    text.lines()
        .map(|line| {
            let at = line.find("<number>").unwrap_or_else(|| panic!("{line}"));
            line[at + 8..].split('<').next().unwrap().parse().unwrap()
        })
        .collect()
}

#[test]
fn the_captured_request_gets_the_captured_reply() {
    run(|fixture| async move {
        let mut client = fixture.connect(b"");
        client.write_all(inc(42).as_bytes()).await.unwrap();
        assert_eq!(
            reply(&mut client).await,
            "<exec><product id=\"GSX\"><title>VMware Server</title><version>1.0.3 build-44356</version>\
             <build>44356</build></product><returncode>1</returncode><out><number>43</number></out></exec>\n"
        );
    });
}

#[test]
fn ten_thousand_requests_are_answered_in_order_to_a_client_that_writes_first() {
    run(|fixture| async move {
        let mut client = fixture.connect(b"");
        let requests: String = (0..10_000).map(inc).collect();
        client.write_all(requests.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let text = rest(&mut client).await;
        assert_eq!(numbers(&text), (1..=10_000).collect::<Vec<_>>());
        assert_eq!(fixture.counter.total(), 10_000);
    });
}

#[test]
fn a_request_may_be_split_anywhere_even_at_the_hand_over() {
    run(|fixture| async move {
        let text = format!("{}\n\0 {}", inc(1), inc(2));
        for at in 0..=text.len() {
            let (early, late) = text.as_bytes().split_at(at);
            let mut client = fixture.connect(early);
            client.write_all(late).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(numbers(&rest(&mut client).await), [2, 3], "split at {at}");
        }
        // Byte by byte, each one read by itself.
        let mut client = fixture.connect(b"");
        for byte in inc(7).bytes() {
            client.write_u8(byte).await.unwrap();
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        assert_eq!(numbers(&reply(&mut client).await), [8]);
    });
}

#[test]
fn requests_received_before_a_half_close_are_answered_and_a_part_of_one_is_not() {
    run(|fixture| async move {
        let mut client = fixture.connect(b"");
        client.write_all(format!("{}{COUNT}{}<exec><op>", inc(1), inc(2)).as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        fixture.core.allowed.add_permits(1);
        let text = rest(&mut client).await;
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].contains("<count>7</count>"));
        assert_eq!(numbers(lines[2]), [3]);
    });
}

#[test]
fn a_malformed_request_is_answered_before_the_connection_closes() {
    run(|fixture| async move {
        for (bad, reason) in [
            ("<exec><op>inc</in></exec>", "malformed request: "),
            ("GET / HTTP/1.0\r\n\r\n", "malformed request: "),
            ("<!DOCTYPE x><exec/>", "malformed request: "),
        ] {
            let mut client = fixture.connect(b"");
            // What follows is more than was read: closing must not throw the reply away.
            let flood = "x".repeat(100_000);
            client.write_all(format!("{}{bad}{flood}", inc(1)).as_bytes()).await.unwrap();
            let text = rest(&mut client).await;
            let lines: Vec<_> = text.lines().collect();
            assert_eq!(lines.len(), 2, "{text}");
            assert_eq!(numbers(lines[0]), [2]);
            assert!(lines[1].contains("<returncode>0</returncode><errors><error code=\"-3\">"), "{text}");
            assert!(lines[1].contains(reason), "{text}");
        }
        assert_eq!(fixture.counter.total(), 6);
    });
}

#[test]
fn a_refused_request_leaves_the_connection_open() {
    run(|fixture| async move {
        let mut client = fixture.connect(b"");
        for (request, code) in [
            ("<exec><op>frobnicate</op></exec>", "-17"),
            ("<exec><op>inc</op></exec>", "-3"),
            ("<exec><op>inc</op><in><number>x</number></in></exec>", "-3"),
            ("<exec><op>div</op><in><dividend>1</dividend><divisor>0</divisor></in></exec>", "-999"),
        ] {
            client.write_all(request.as_bytes()).await.unwrap();
            let text = reply(&mut client).await;
            assert!(text.contains(&format!("<error code=\"{code}\">")), "{text}");
        }
        client.write_all(inc(1).as_bytes()).await.unwrap();
        assert_eq!(numbers(&reply(&mut client).await), [2]);
        assert_eq!(fixture.counter.total(), 5);
    });
}

#[test]
fn a_slow_request_holds_back_its_own_connection_only() {
    run(|fixture| async move {
        let mut slow = fixture.connect(b"");
        let mut other = fixture.connect(b"");
        slow.write_all(format!("{}{COUNT}{}", inc(1), inc(2)).as_bytes()).await.unwrap();
        // The reply before the slow one does not wait for it.
        assert_eq!(numbers(&reply(&mut slow).await), [2]);
        other.write_all(inc(5).as_bytes()).await.unwrap();
        assert_eq!(numbers(&reply(&mut other).await), [6]);
        let mut byte = [0];
        assert!(slow.try_read(&mut byte).is_err());
        fixture.core.allowed.add_permits(1);
        assert!(reply(&mut slow).await.contains("<count>7</count>"));
        assert_eq!(numbers(&reply(&mut slow).await), [3]);
        // Back to idle, and the connection is as good as new.
        slow.write_all(inc(8).as_bytes()).await.unwrap();
        assert_eq!(numbers(&reply(&mut slow).await), [9]);
        assert_eq!(fixture.server.busy(), 0);
    });
}

#[test]
fn a_panic_of_a_handler_is_an_internal_error_of_one_request() {
    run(|fixture| async move {
        let mut client = fixture.connect(b"");
        client.write_all(format!("{BROKEN}{}", inc(1)).as_bytes()).await.unwrap();
        let text = reply(&mut client).await;
        let id = format!("(request {}-1)", std::process::id());
        assert!(text.contains("<error code=\"-999\">Internal error "), "{text}");
        assert!(text.contains(&id) && !text.contains("as ordered"), "{text}");
        assert_eq!(numbers(&reply(&mut client).await), [2]);
    });
}

#[test]
fn a_pipelining_client_does_not_starve_another() {
    run(|fixture| async move {
        let greedy = fixture.connect(inc(0).repeat(50_000).as_bytes());
        let mut modest = fixture.connect(b"");
        modest.write_all(inc(1).as_bytes()).await.unwrap();
        assert_eq!(numbers(&reply(&mut modest).await), [2]);
        // The greedy one cannot have been finished: its replies fill more than its socket.
        assert!(fixture.counter.total() < 10_000);
        drop(greedy);
    });
}

#[test]
fn a_client_that_does_not_read_is_dropped_when_too_much_waits_for_too_long() {
    run(|fixture| async move {
        let mut client = fixture.connect(b"");
        let size = {
            client.write_all(TABLE.as_bytes()).await.unwrap();
            reply(&mut client).await.len()
        };
        let enough = MAX_WAITING / size + 100;
        let begin = tokio::time::Instant::now();
        let (mut reader, mut writer) = client.into_split();
        let writing = spawn_local(async move { writer.write_all(TABLE.repeat(enough).as_bytes()).await });
        while fixture.server.live() > 0 {
            fixture.server.changed.notified().await;
        }
        let waited = begin.elapsed();
        assert!(waited >= MAX_STALL && waited < 10 * MAX_STALL, "{waited:?}");
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text).await;
        assert!(text.len() < enough * size);
        let _ = writing.await;
    });
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    run(|fixture| async move {
        // Below the limit there is no hurry, however long it takes.
        let requests = 3 * MAX_WAITING / 4 / 220;
        let mut client = fixture.connect(b"");
        client.write_all(inc(0).repeat(requests).as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        tokio::time::sleep(MAX_STALL + MAX_STALL / 2).await;
        assert_eq!(rest(&mut client).await.lines().count(), requests);
    });
}

#[test]
fn at_the_end_the_request_in_flight_is_answered_and_what_was_sent_ahead_is_not() {
    run(|fixture| async move {
        let mut client = fixture.connect(b"");
        client.write_all(format!("{}{COUNT}{}", inc(1), inc(2)).as_bytes()).await.unwrap();
        assert_eq!(numbers(&reply(&mut client).await), [2]);
        fixture.server.begin_stop();
        assert_eq!(fixture.server.busy(), 1);
        fixture.core.allowed.add_permits(1);
        let text = rest(&mut client).await;
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("<count>7</count>"));
        drop(client);
        while fixture.server.live() > 0 {
            fixture.server.changed.notified().await;
        }
        assert_eq!(fixture.server.take_ended(), [1]);
    });
}

#[test]
fn an_idle_connection_is_small() {
    run(|fixture| async move {
        let (_client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        let task = connection::serve(&fixture.server, fixture.ctx.clone(), server.into(), b"");
        let size = size_of_val(&task);
        assert!(size <= 192, "{size} bytes");
        drop(task);
    });
}
