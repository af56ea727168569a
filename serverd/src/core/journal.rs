//! The journal of tasks: one line when a task begins, one when it ends.
//!
//! After a crash it says which tasks were under way, whose they were, and where they left something
//! unfinished. Lines are JSON; a line that cannot be read, such as a torn last one, is skipped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::channel::{TaskEnd, TaskFacts};

/// Exactly whose a task is: what it takes to start a process of that user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: String,
}

/// Where a task leaves what it has not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// The directory.
    pub directory: String,
    /// What the names in it begin with.
    pub prefix: String,
}

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// A task begins.
    Begin { id: u64, op: String, owner: Owner, total: u64, start: i64, partial: Option<Partial> },
    /// A task has ended.
    End { id: u64, end: i64, done: u64, total: u64, error: Option<(i32, String)>, stopped: bool },
    /// A task is forgotten.
    Forget { id: u64 },
    /// The highest number ever given, where the lines of that task are gone.
    Last { id: u64 },
}

fn text(line: &Line) -> String {
    // A struct of numbers and strings always has a JSON form.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

/// The line of a task that begins.
#[must_use]
pub fn begin(facts: &TaskFacts, owner: &Owner, partial: Option<&Partial>) -> String {
    text(&Line::Begin {
        id: facts.id,
        op: facts.op.clone(),
        owner: owner.clone(),
        total: facts.total,
        start: facts.start,
        partial: partial.cloned(),
    })
}

/// The line of a task that has ended.
#[must_use]
pub fn end(facts: &TaskFacts) -> String {
    let error = match &facts.state {
        TaskEnd::Failed { code, text } => Some((*code, text.clone())),
        _ => None,
    };
    text(&Line::End {
        id: facts.id,
        end: facts.end,
        done: facts.done,
        total: facts.total,
        error,
        stopped: facts.state == TaskEnd::Stopped,
    })
}

/// The line of a task that is forgotten.
#[must_use]
pub fn forget(id: u64) -> String {
    text(&Line::Forget { id })
}

/// The line that keeps the highest number ever given.
#[must_use]
pub fn last(id: u64) -> String {
    text(&Line::Last { id })
}

/// The same journal without what is forgotten: as short as it can be.
#[must_use]
pub fn compacted(journal: &str) -> String {
    let (tasks, highest) = read(journal);
    let mut lines = if tasks.contains_key(&highest) || highest == 0 { String::new() } else { last(highest) };
    for Recorded { facts, owner, partial } in tasks.values() {
        lines.push_str(&begin(facts, owner, partial.as_ref()));
        if facts.state != TaskEnd::Running {
            lines.push_str(&end(facts));
        }
    }
    lines
}

/// A task as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its facts; [`TaskEnd::Running`] when its end is not recorded.
    pub facts: TaskFacts,
    /// Whose it is.
    pub owner: Owner,
    /// What it may have left.
    pub partial: Option<Partial>,
}

/// Reads a journal: the tasks that are not forgotten, and the highest number ever given.
#[must_use]
pub fn read(journal: &str) -> (BTreeMap<u64, Recorded>, u64) {
    let mut tasks: BTreeMap<u64, Recorded> = BTreeMap::new();
    let mut highest = 0;
    for line in journal.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Begin { id, op, owner, total, start, partial }) => {
                highest = highest.max(id);
                let user = owner.name.clone();
                let facts = TaskFacts {
                    id,
                    op,
                    user,
                    state: TaskEnd::Running,
                    done: 0,
                    total,
                    start,
                    end: 0,
                    seconds: 0,
                };
                tasks.insert(id, Recorded { facts, owner, partial });
            }
            Ok(Line::End { id, end, done, total, error, stopped }) => {
                if let Some(task) = tasks.get_mut(&id) {
                    task.facts.state = match error {
                        Some((code, text)) => TaskEnd::Failed { code, text },
                        None if stopped => TaskEnd::Stopped,
                        None => TaskEnd::Done,
                    };
                    (task.facts.end, task.facts.done, task.facts.total) = (end, done, total);
                }
            }
            Ok(Line::Forget { id }) => {
                tasks.remove(&id);
            }
            Ok(Line::Last { id }) => highest = highest.max(id),
            Err(error) => tracing::warn!("the journal of tasks has a line that is none: {error}"),
        }
    }
    (tasks, highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let owner =
            Owner { uid: 1000, gid: 100, groups: vec![100], name: "a\"b".into(), home: "/home/a\nb".into() };
        let facts = |id| TaskFacts {
            id,
            op: "FileManager_FileCopy".into(),
            user: owner.name.clone(),
            state: TaskEnd::Running,
            done: 0,
            total: 9,
            start: 5,
            end: 0,
            seconds: 0,
        };
        let partial = Partial { directory: "/d".into(), prefix: ".x-".into() };
        let ended = |id, state: &TaskEnd| TaskFacts { state: state.clone(), end: 7, done: 3, ..facts(id) };
        let states = [TaskEnd::Done, TaskEnd::Stopped, TaskEnd::Failed { code: -4, text: "no\n".into() }];
        let mut journal = String::new();
        for id in 1..=5 {
            journal.push_str(&begin(&facts(id), &owner, Some(&partial)));
        }
        for (id, state) in (1..).zip(&states) {
            journal.push_str(&end(&ended(id, state)));
        }
        journal.push_str(&forget(4));
        journal.push_str("{\"end\":{\"id\":5,\"en");
        let (tasks, highest) = read(&journal);
        assert_eq!(highest, 5);
        assert_eq!(tasks.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 5]);
        for (id, state) in (1..).zip(&states) {
            assert_eq!(tasks[&id].facts, ended(id, state));
        }
        let running = Recorded { facts: facts(5), owner: owner.clone(), partial: Some(partial) };
        assert_eq!(tasks[&5], running);

        // The shorter one says the same, and no number is given twice when the last task is forgotten.
        let shorter = compacted(&journal);
        assert_eq!(read(&shorter), (tasks, 5));
        assert_eq!((compacted(&shorter), shorter.lines().count()), (shorter.clone(), 7));
        let forgotten: String = (1..=5).map(forget).collect();
        assert_eq!(read(&compacted(&(shorter + &forgotten))), (BTreeMap::new(), 5));
    }
}
