//! `VM_GetLastNEvents`: the end of a machine's event log, read as the caller.

use handlers_derive::handler;
use hypervisor::event_log::{self, EventKind, file_name};
use ops::Error;
use ops::event_log::{Event, EventType, GetLastNEvents, GetLastNEventsReply};
use ops::value::Time;

use crate::{Ctx, Failure, machine};

/// The latest events of a machine that the caller can see. The log has rights of its own, those of the
/// .vmx as it was when something was last logged: the kernel decides once more.
#[handler]
async fn get_last_n_events(ctx: &Ctx, req: GetLastNEvents) -> Result<GetLastNEventsReply, Failure> {
    let machine = machine::visible(ctx, &req.config).await?;
    // Whoever was told of an event finds it in the log.
    ctx.core.settled().await?;
    let logs = ctx.event_logs.clone();
    // The declaration allows 1 to 1000.
    let count = usize::try_from(req.n).unwrap_or(1);
    let read = move || {
        event_log::last(&logs, machine.config.as_ref(), count)
            .map_err(|error| Error::file(logs.join(file_name(machine.config.as_ref())), &error))
    };
    let events = tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Failure::internal("reading an event log", error))??;
    Ok(GetLastNEventsReply { config: req.config, events: events.into_iter().map(event).collect() })
}

/// An event of the log as one of a reply.
fn event(event: event_log::Event) -> Event {
    Event {
        kind: match event.kind {
            EventKind::Info => EventType::Info,
            EventKind::Warning => EventType::Warning,
            EventKind::Error => EventType::Error,
            EventKind::Debug => EventType::Debug,
            EventKind::Question => EventType::Question,
            EventKind::Answer => EventType::Answer,
        },
        time: Time(event.time),
        subject: event.subject,
        body: event.body,
        choices: event.choices,
        users: event.users,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{FixedCore, ctx_below, ctx_with};
    use hypervisor::event_log::LogRights;
    use ops::value::ConfigPath;
    use ops::{Fault, Out, Reply};

    fn request(config: &str, n: i64) -> GetLastNEvents {
        GetLastNEvents { config: ConfigPath::try_from(config.to_owned()).unwrap(), n }
    }

    #[tokio::test]
    async fn events_come_newest_first_in_the_shape_of_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("a.vmx");
        std::fs::write(&config, "config.version = \"8\"\n").unwrap();
        let name = config.to_str().unwrap().to_owned();
        let ctx = ctx_below(
            directory.path(),
            FixedCore { count: 0, vms: vec![name.clone()], ..FixedCore::default() },
        );
        let logs = ctx.event_logs.clone();
        std::fs::create_dir_all(&logs).unwrap();

        let reply = get_last_n_events(&ctx, request(&name, 25)).await.unwrap();
        assert_eq!(reply.events, [], "no log, no events");

        let rights = LogRights::like(&std::fs::metadata(&config).unwrap());
        for number in 1..=3 {
            let mut event = event_log::Event::new(EventKind::Question, number, format!("event {number}"));
            event.body = vec!["a < b".to_owned()];
            event.choices = vec!["OK".to_owned(), "Cancel".to_owned()];
            event.users = vec!["alice".to_owned()];
            event_log::append(&logs, &config, rights, &event).unwrap();
        }
        // Foreign and damaged lines are passed over.
        let log = logs.join(file_name(&config));
        let mut lines = std::fs::read(&log).unwrap();
        lines.extend(b"Something else\n<event type=\"info\"><time>5</time><subject>cut\n");
        lines.extend(b"<event type=\"info\"><time>4</time><subject>A & B</subject><body/></event>\n");
        std::fs::write(&log, lines).unwrap();

        let reply = get_last_n_events(&ctx, request(&name, 2)).await.unwrap();
        let mut bytes = Vec::new();
        reply.write(&mut Out::new(&mut bytes));
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            format!(
                "<config>{name}</config><events><event type=\"info\"><time>4</time>\
                 <subject>A &amp; B</subject><body/></event><event type=\"question\"><time>3</time>\
                 <subject>event 3</subject><body><p>a &lt; b</p></body><choice>OK</choice>\
                 <choice>Cancel</choice><user>alice</user></event></events>"
            )
        );
        assert_eq!(get_last_n_events(&ctx, request(&name, 1000)).await.unwrap().events.len(), 4);
    }

    #[tokio::test]
    async fn a_machine_that_is_not_registered_has_no_events() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("a.vmx");
        std::fs::write(&config, "config.version = \"8\"\n").unwrap();
        let name = config.to_str().unwrap();
        let ctx = ctx_with(FixedCore { count: 0, vms: Vec::new(), ..FixedCore::default() });
        match get_last_n_events(&ctx, request(name, 25)).await {
            Err(Failure::Told(Fault::Refused(error))) => assert_eq!(error, Error::not_registered(name)),
            other => panic!("{other:?}"),
        }
    }
}
