//! `TaskManager_*`: work that outlives its request.
//!
//! Tasks are made by long copies. A task belongs to the user who started it; to others it does not
//! exist, administrators see all.

use ops_derive::{Fragment, Op, Reply};

use crate::value::{Size, Time};

crate::words! {
    /// How a task is.
    pub enum TaskState {
        /// It waits for its turn.
        Queued = "queued",
        /// It is at work.
        Running = "running",
        /// All is done.
        Done = "done",
        /// It has failed; `error` says why.
        Failed = "failed",
        /// Somebody has stopped it.
        Stopped = "stopped",
    }
}

/// A task.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Task {
    /// Its number.
    #[field(name = "taskId")]
    pub task_id: u64,
    /// Name of the operation that made it.
    pub op: String,
    /// Login name of whoever started it.
    pub user: String,
    /// How it is: `queued`, `running`, `done`, `failed` or `stopped`.
    pub state: TaskState,
    /// Share that is done, 0 to 100; 100 only when all is.
    pub percent: u64,
    /// Bytes done.
    #[field(name = "bytesDone")]
    pub bytes_done: Size,
    /// Bytes to do in all.
    #[field(name = "bytesTotal")]
    pub bytes_total: Size,
    /// Bytes per second: while it runs of the time so far, afterwards of the whole.
    pub rate: Size,
    /// When it began.
    #[field(name = "startTime")]
    pub start_time: Time,
    /// When it ended. Absent while it runs.
    #[field(name = "endTime")]
    pub end_time: Option<Time>,
    /// Why it has failed. Absent otherwise.
    pub error: Option<TaskError>,
}

/// Why a task has failed.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct TaskError {
    /// Number of the error, as in an error reply.
    #[field(attribute)]
    pub code: i64,
    /// Its text.
    #[field(content)]
    pub text: String,
}

/// Tells how a task is.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "TaskManager_StatusOfTask", handler = "TaskManager::StatusOfTask_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = StatusOfTaskReply)]
pub struct StatusOfTask {
    /// Number of the task.
    #[field(name = "taskId", alias = "id")]
    pub task_id: u64,
}

/// How a task is.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct StatusOfTaskReply {
    /// The task.
    pub task: Task,
}

/// Stops a task and removes what it has not finished.
///
/// Waits for the end of the task, at most five seconds. A task that has ended stays as it is, which
/// is no failure.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "TaskManager_StopTask", handler = "TaskManager::StopTask_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = StopTaskReply)]
pub struct StopTask {
    /// Number of the task.
    #[field(name = "taskId", alias = "id")]
    pub task_id: u64,
}

/// How the task is now.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct StopTaskReply {
    /// Number of the task.
    #[field(name = "taskId")]
    pub task_id: u64,
    /// Its state; `running` when it has not stopped within five seconds.
    pub state: TaskState,
}

/// Forgets a task that has ended.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "TaskManager_DeleteTask", handler = "TaskManager::DeleteTask_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = DeleteTaskReply)]
pub struct DeleteTask {
    /// Number of the task.
    #[field(name = "taskId", alias = "id")]
    pub task_id: u64,
}

/// What was forgotten.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct DeleteTaskReply {
    /// Number of the task.
    #[field(name = "taskId")]
    pub task_id: u64,
}

/// Lists tasks, newest first.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "TaskManager_ListTasks", handler = "Extension::TaskManager_ListTasks_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = ListTasksReply)]
pub struct ListTasks {
    /// Whether an administrator wants to see the tasks of every user. Means nothing to others.
    #[field(default = "0")]
    pub all: bool,
}

/// The tasks that the caller may see.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ListTasksReply {
    /// The tasks.
    #[field(list = "tasks/task")]
    pub tasks: Vec<Task>,
}
