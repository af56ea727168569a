//! Replies of all shapes.

use fuzz::Input;
use ops::disk::{CreateCowDiskReply, DiskType};
use ops::event_log::{Event, EventType, GetLastNEventsReply};
use ops::file_manager::{Branch, Entry, EntryType, ListDirTreeReply, Modes};
use ops::machine::{ListItem, ListReply, ListedVm, PowerState, VmDetails};
use ops::task_manager::{ListTasksReply, Task, TaskError, TaskState};
use ops::value::{Element, HostPath, Size, Time, Triad};
use ops::vm_power::PowerReply;
use ops::vmserverd::GetProductInfoReply;
use ops::{Out, Product};

use crate::pieces::{config, number, path, word};
use crate::readers::{Leaf, PRODUCT, finds, leaf, replies};

/// Any elements, one inside the other, by the pen itself.
pub(crate) fn pen(mut input: Input<'_>) {
    const NAMES: [&str; 4] = ["a", "entry", "Name-1", "_x"];
    let mut bytes = Vec::new();
    let mut pen = Out::new(&mut bytes);
    assert!(pen.is_empty());
    let (mut open, mut path, mut expected) = (Vec::new(), String::from("root"), Vec::new());
    let root = pen.open("root");
    let mut elements = 0;
    while !input.is_empty() && elements < 200 {
        elements += 1;
        let operation = input.byte();
        let name = NAMES[usize::from(operation >> 4) % 4];
        match operation % 8 {
            0 | 1 if open.len() < 30 => {
                let value = word(&mut input);
                let length = path.len();
                path = format!("{path}/{name}");
                let mark = if operation & 8 == 0 {
                    pen.open(name)
                } else {
                    pen.begin(name);
                    pen.attribute("v", |pen| pen.text(&value));
                    expected.push(leaf(&format!("{path}@v"), &value));
                    pen.end_attributes()
                };
                open.push((name, mark, length, pen.len() == mark));
                // An element with nothing in it yet is a leaf, if nothing comes.
                continue;
            }
            2 if !open.is_empty() => {
                if let Some((name, mark, length, _)) = open.pop() {
                    if pen.len() == mark {
                        expected.push((path.clone(), String::new()));
                    }
                    pen.close(name, mark);
                    path.truncate(length);
                }
            }
            _ => {
                let mark = pen.open(name);
                let value = match operation % 8 {
                    3 => {
                        let number = number(&mut input);
                        pen.unsigned(number);
                        number.to_string()
                    }
                    4 => {
                        let number = number(&mut input).cast_signed();
                        pen.signed(number);
                        number.to_string()
                    }
                    5 => {
                        let value = word(&mut input);
                        pen.display(&value);
                        value
                    }
                    _ => {
                        let value = word(&mut input);
                        pen.text(&value);
                        value
                    }
                };
                pen.close(name, mark);
                expected.push(leaf(&format!("{path}/{name}"), value));
            }
        }
    }
    while let Some((name, mark, length, _)) = open.pop() {
        if pen.len() == mark {
            expected.push((path.clone(), String::new()));
        }
        pen.close(name, mark);
        path.truncate(length);
    }
    if pen.len() == root {
        expected.push(leaf("root", ""));
    }
    pen.close("root", root);
    finds(std::str::from_utf8(&bytes).expect("text"), &expected);
}

fn modes(modes: &Modes, path: &str) -> Vec<Leaf> {
    let word = |triad: Triad| -> String {
        [(4, 'r'), (2, 'w'), (1, 'x')]
            .map(|(bit, letter)| if triad.bits() & bit == 0 { '-' } else { letter })
            .iter()
            .collect()
    };
    [("owner_mode", modes.owner_mode), ("group_mode", modes.group_mode), ("other_mode", modes.other_mode)]
        .into_iter()
        .filter_map(|(name, triad)| Some(leaf(&format!("{path}/{name}"), word(triad?))))
        .collect()
}

fn entry(input: &mut Input<'_>) -> Entry {
    let (name, mode) = (word(input), input.word());
    let (name_encoding, name, path) = Entry::names(name.as_bytes(), &[b"/", name.as_bytes()].concat());
    Entry {
        name_encoding,
        name,
        path,
        kind: [EntryType::File, EntryType::Directory, EntryType::Link, EntryType::Other]
            [usize::from(mode) % 4],
        size: Size(number(input)),
        mtime: Time(number(input).cast_signed()),
        owner: word(input),
        group: word(input),
        modes: Modes::from_mode(mode.into()),
    }
}

/// Entries inside entries, as deep as they say.
pub(crate) fn tree(mut input: Input<'_>) {
    let directory = path(&mut input);
    let warnings: Vec<String> = (0..input.byte() % 3).map(|_| word(&mut input)).collect();
    let mut entries: Vec<Branch> = Vec::new();
    let mut expected = vec![leaf("directory", &directory)];
    let mut path = vec!["entries"];
    // Whether the innermost list is still empty.
    let mut empty = true;
    let close = |path: &mut Vec<&'static str>, empty: &mut bool, expected: &mut Vec<Leaf>| {
        if *empty {
            expected.push(leaf(&path.join("/"), ""));
        }
        *empty = false;
        path.truncate(path.len() - 2);
    };
    while !input.is_empty() && entries.len() < 40 {
        let (step, one) = (input.byte(), entry(&mut input));
        // At most one level deeper than the one before, and deeper only in one that was opened.
        let inside = entries.last().is_some_and(|before: &Branch| before.opened);
        let above = entries.last().map_or(0, |before: &Branch| before.depth);
        let depth = (above + u32::from(inside)).saturating_sub(u32::from(step % 4)).max(1);
        while path.len() > 2 * depth as usize - 1 {
            close(&mut path, &mut empty, &mut expected);
        }
        empty = false;
        let at = format!("{}/entry", path.join("/"));
        let opened = step & 0x80 != 0 && depth < 12;
        expected
            .extend(one.name_encoding.map(|encoding| leaf(&format!("{at}/nameEncoding"), encoding.word())));
        for (name, value) in [("name", &one.name), ("path", &one.path)] {
            expected.push(leaf(&format!("{at}/{name}"), value));
        }
        expected.push(leaf(&format!("{at}/type"), one.kind.word()));
        expected.push(leaf(&format!("{at}/size"), one.size.0));
        expected.push(leaf(&format!("{at}/mtime"), one.mtime.0));
        expected.push(leaf(&format!("{at}/owner"), &one.owner));
        expected.push(leaf(&format!("{at}/group"), &one.group));
        expected.extend(modes(&one.modes, &at));
        if opened {
            path.extend(["entry", "entries"]);
            empty = true;
        }
        entries.push(Branch { depth, entry: one, opened });
    }
    while path.len() > 1 {
        close(&mut path, &mut empty, &mut expected);
    }
    if empty {
        expected.push(leaf("entries", ""));
    }
    replies(&PRODUCT, &ListDirTreeReply { directory, entries, warnings }, expected);
}

/// The list of machines, whose elements may have been written before.
pub(crate) fn machines(mut input: Input<'_>) {
    let states =
        [PowerState::On, PowerState::Off, PowerState::Suspended, PowerState::Stuck, PowerState::Unknown];
    let (mut vms, mut expected) = (Vec::new(), Vec::new());
    while !input.is_empty() && vms.len() < 20 {
        let (flags, config) = (input.word(), config(&mut input));
        let has = |bit: u16| flags >> bit & 1 == 1;
        let details = VmDetails {
            display_name: has(0).then(|| word(&mut input)),
            guest_os: has(1).then(|| word(&mut input)),
            power: has(2).then(|| states[usize::from(input.byte()) % 5]),
            paused: has(3).then_some(has(4)),
            id: has(5).then(|| number(&mut input)),
            pid: None,
            uptime: has(6).then(|| number(&mut input)),
            heartbeat: None,
            memory_mb: has(7).then(|| number(&mut input)),
            cpus: has(8).then_some(4),
            cpu_percent: None,
            ip: has(9).then(|| word(&mut input)),
            permissions: has(10).then(|| "r-x".to_owned()),
            has_question: has(11).then_some(has(12)),
        };
        let at = |name: &str| format!("vms/vm/{name}");
        expected.push(leaf(&at("config"), &config));
        expected.extend(details.display_name.as_ref().map(|text| leaf(&at("displayName"), text)));
        expected.extend(details.guest_os.as_ref().map(|text| leaf(&at("guestOS"), text)));
        expected.extend(details.power.map(|state| leaf(&at("powerState"), state.word())));
        expected.extend(details.paused.map(|flag| leaf(&at("paused"), u8::from(flag))));
        expected.extend(details.id.map(|number| leaf(&at("id"), number)));
        expected.extend(details.uptime.map(|number| leaf(&at("uptime"), number)));
        expected.extend(details.memory_mb.map(|number| leaf(&at("memoryMb"), number)));
        expected.extend(details.cpus.map(|number| leaf(&at("cpus"), number)));
        expected.extend(details.ip.as_ref().map(|text| leaf(&at("ip"), text)));
        expected.extend(details.permissions.as_ref().map(|text| leaf(&at("permissions"), text)));
        expected.extend(details.has_question.map(|flag| leaf(&at("hasQuestion"), u8::from(flag))));
        let vm = ListedVm { config, details };
        vms.push(if has(15) {
            let mut bytes = Vec::new();
            vm.write_element("vm", &mut Out::new(&mut bytes));
            ListItem::Written(bytes.into())
        } else {
            ListItem::Vm(Box::new(vm))
        });
    }
    if vms.is_empty() {
        expected.push(leaf("vms", ""));
    }
    replies(&PRODUCT, &ListReply { vms }, expected);
}

/// One of several other replies, from a product with any name.
pub(crate) fn mixed(mut input: Input<'_>) {
    let choice = input.byte();
    let product = Product::new(&word(&mut input), &word(&mut input), &word(&mut input), &word(&mut input));
    match choice % 5 {
        0 => {
            let config = config(&mut input);
            let task_id = (choice & 8 != 0).then(|| number(&mut input));
            let paused = (choice & 16 != 0).then_some(choice & 32 != 0);
            let power = (choice & 64 != 0).then_some(PowerState::Suspended);
            let mut expected = vec![leaf("config", &config)];
            expected.extend(power.map(|power| leaf("powerState", power.word())));
            expected.extend(paused.map(|paused| leaf("paused", u8::from(paused))));
            expected.extend(task_id.map(|number| leaf("taskId", number)));
            replies(&product, &PowerReply { config, power, paused, task_id }, expected);
        }
        1 => {
            let (name, version) = (word(&mut input), word(&mut input));
            let expected = vec![
                leaf("product@id", product.id()),
                leaf("product/title", product.title()),
                leaf("product/version", product.version()),
                leaf("product/build", product.build()),
                leaf("platform", "linux"),
                leaf("implementation/name", &name),
                leaf("implementation/version", &version),
            ];
            replies(&product, &GetProductInfoReply::new(&product, &name, &version), expected);
        }
        2 => {
            let (file, size) = (path(&mut input), Size(number(&mut input)));
            let files: Vec<HostPath> = (0..choice >> 4).map(|_| path(&mut input)).collect();
            let warnings: Vec<String> = (0..choice >> 6).map(|_| word(&mut input)).collect();
            let cid = word(&mut input);
            let mut expected = vec![
                leaf("file", &file),
                leaf("size", size.0),
                leaf("type", "vmfsSparse"),
                leaf("cid", &cid),
            ];
            expected.extend(files.is_empty().then(|| leaf("files", "")));
            expected.extend(files.iter().map(|file| leaf("files/file", file)));
            let kind = DiskType::VmfsSparse;
            replies(&product, &CreateCowDiskReply { file, size, kind, cid, files, warnings }, expected);
        }
        3 => {
            let (mut tasks, mut expected) = (Vec::new(), Vec::new());
            while !input.is_empty() && tasks.len() < 9 {
                let flags = input.byte();
                let task = Task {
                    task_id: number(&mut input),
                    op: word(&mut input),
                    user: word(&mut input),
                    state: [TaskState::Running, TaskState::Done, TaskState::Failed, TaskState::Stopped]
                        [usize::from(flags) % 4],
                    percent: u64::from(flags),
                    bytes_done: Size(number(&mut input)),
                    bytes_total: Size(number(&mut input)),
                    rate: Size(number(&mut input)),
                    start_time: Time(number(&mut input).cast_signed()),
                    end_time: (flags & 16 != 0).then_some(Time(-1)),
                    error: (flags & 32 != 0).then(|| TaskError { code: -4, text: word(&mut input) }),
                };
                let found = expected.len();
                expected.push(leaf("tasks/task/taskId", task.task_id));
                expected.push(leaf("tasks/task/op", &task.op));
                expected.push(leaf("tasks/task/user", &task.user));
                expected.push(leaf("tasks/task/state", task.state.word()));
                expected.push(leaf("tasks/task/percent", task.percent));
                expected.push(leaf("tasks/task/bytesDone", task.bytes_done.0));
                expected.push(leaf("tasks/task/bytesTotal", task.bytes_total.0));
                expected.push(leaf("tasks/task/rate", task.rate.0));
                expected.push(leaf("tasks/task/startTime", task.start_time.0));
                expected.extend(task.end_time.map(|time| leaf("tasks/task/endTime", time.0)));
                if let Some(error) = &task.error {
                    expected.push(leaf("tasks/task/error@code", error.code));
                    expected.push(leaf("tasks/task/error", &error.text));
                }
                assert!(expected.len() >= found + 9);
                tasks.push(task);
            }
            expected.extend(tasks.is_empty().then(|| leaf("tasks", "")));
            replies(&product, &ListTasksReply { tasks }, expected);
        }
        _ => {
            let config = config(&mut input);
            let (mut events, mut expected) = (Vec::new(), vec![leaf("config", &config)]);
            while !input.is_empty() && events.len() < 9 {
                let counts = input.byte();
                let mut words =
                    |count: u8| -> Vec<String> { (0..count % 4).map(|_| word(&mut input)).collect() };
                let (body, choices, users) = (words(counts), words(counts >> 2), words(counts >> 4));
                let event = Event {
                    kind: EventType::Info,
                    time: Time(number(&mut input).cast_signed()),
                    subject: word(&mut input),
                    body,
                    choices,
                    users,
                };
                expected.push(leaf("events/event@type", event.kind.word()));
                expected.push(leaf("events/event/time", event.time.0));
                expected.push(leaf("events/event/subject", &event.subject));
                expected.extend(event.body.is_empty().then(|| leaf("events/event/body", "")));
                expected.extend(event.body.iter().map(|text| leaf("events/event/body/p", text)));
                expected.extend(event.choices.iter().map(|text| leaf("events/event/choice", text)));
                expected.extend(event.users.iter().map(|text| leaf("events/event/user", text)));
                events.push(event);
            }
            expected.extend(events.is_empty().then(|| leaf("events", "")));
            replies(&product, &GetLastNEventsReply { config, events }, expected);
        }
    }
}
