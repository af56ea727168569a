//! What the processes of a server do to be woken only when there is something to do.
//!
//! **One direction.** The sockets of tokio are watched for reading and writing. A unix socket that is watched for writing
//! wakes its process each time the other end has read something, which between processes that ask and
//! answer is one useless wake-up per message, on either side. So what waits to read watches for that alone, and
//! who finds a socket full, which is rare, watches a copy of it until there is room.
//!
//! **Tasks only.** The future that is given to `block_on` is polled between two looks at the reactor: whatever
//! wakes it costs a further `epoll_wait`. So [`run`] makes a task of it, like all others.

use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::LocalRuntime;

/// When a full socket is looked at again if there is no descriptor left to watch it with.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Runs a future as a task of the runtime until it is ready.
pub fn run<F>(runtime: &LocalRuntime, main: F) -> F::Output
where
    F: Future + 'static,
    F::Output: 'static,
{
    match runtime.block_on(runtime.spawn_local(main)) {
        Ok(output) => output,
        // Nobody aborts it, so it has panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Registers a descriptor, which must not block, with the reactor of the current runtime.
///
/// # Errors
/// As `epoll_ctl(2)`.
#[expect(
    deprecated,
    reason = "the new form is unsafe, for owners that could close or change their descriptor"
)]
pub fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

/// Waits until a full socket has room again, or has failed.
pub fn room(socket: BorrowedFd<'_>) -> impl Future<Output = ()> + Send + use<> {
    let copy = socket.try_clone_to_owned();
    async move {
        match copy.and_then(|copy| register(copy, Interest::WRITABLE)) {
            Ok(copy) => {
                // The next attempt to write says what is wrong.
                let _ = copy.writable().await;
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[tokio::test]
    async fn a_full_socket_is_waited_for_and_an_empty_one_is_not() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        room(a.as_fd()).await;
        let mut sent = 0;
        while let Ok(count) = a.write(&[0; 4096]) {
            sent += count;
        }
        let waiting = room(a.as_fd());
        let reading = std::thread::spawn(move || {
            b.read_exact(&mut vec![0; sent]).unwrap();
            b
        });
        waiting.await;
        a.write_all(&[0]).unwrap();
        drop(reading.join().unwrap());
        // One that has failed is not waited for either.
        room(a.as_fd()).await;
    }

    #[test]
    fn the_main_task_may_make_others_and_its_panic_is_passed_on() {
        let builder = || tokio::runtime::Builder::new_current_thread();
        let runtime = builder().build_local(tokio::runtime::LocalOptions::default()).unwrap();
        let other = async { tokio::task::spawn_local(async { 7 }).await.unwrap() };
        assert_eq!(run(&runtime, other), 7);
        let panics =
            || run(&runtime, async { assert!(std::rc::Rc::strong_count(&std::rc::Rc::new(())) > 1) });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    }

    #[tokio::test]
    async fn a_reader_is_not_woken_when_its_peer_has_read() {
        let (mut a, b) = UnixStream::pair().unwrap();
        b.set_nonblocking(true).unwrap();
        let mut written = b.try_clone().unwrap();
        let watched = register(b.into(), Interest::READABLE).unwrap();
        written.write_all(b"x").unwrap();
        a.read_exact(&mut [0]).unwrap();
        tokio::task::yield_now().await;
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(watched.poll_write_ready(&mut cx).is_pending());
        a.write_all(b"y").unwrap();
        drop(watched.readable().await.unwrap());
    }
}
