//! `TaskManager_*`: how tasks are, and stopping and forgetting them. All of it is asked of the core.

use handlers_derive::handler;
use ops::task_manager::{
    DeleteTask, DeleteTaskReply, ListTasks, ListTasksReply, StatusOfTask, StatusOfTaskReply, StopTask,
    StopTaskReply, Task, TaskError, TaskState,
};
use ops::value::{Size, Time};

use crate::tasks::{State, Status};
use crate::{Ctx, Failure};

/// How a task is.
#[handler]
async fn status_of_task(ctx: &Ctx, req: StatusOfTask) -> Result<StatusOfTaskReply, Failure> {
    Ok(StatusOfTaskReply { task: task(ctx.core.task(req.task_id).await?) })
}

/// Stops a task and waits a little for it.
#[handler]
async fn stop_task(ctx: &Ctx, req: StopTask) -> Result<StopTaskReply, Failure> {
    let status = ctx.core.stop_task(req.task_id).await?;
    Ok(StopTaskReply { task_id: status.id, state: state(status.state) })
}

/// Forgets a task that has ended.
#[handler]
async fn delete_task(ctx: &Ctx, req: DeleteTask) -> Result<DeleteTaskReply, Failure> {
    ctx.core.delete_task(req.task_id).await?;
    Ok(DeleteTaskReply { task_id: req.task_id })
}

/// Tasks of the caller, or of everybody.
#[handler]
async fn list_tasks(ctx: &Ctx, req: ListTasks) -> Result<ListTasksReply, Failure> {
    let tasks = ctx.core.tasks(req.all).await?;
    Ok(ListTasksReply { tasks: tasks.into_iter().map(task).collect() })
}

fn state(state: State) -> TaskState {
    match state {
        State::Running => TaskState::Running,
        State::Done => TaskState::Done,
        State::Failed => TaskState::Failed,
        State::Stopped => TaskState::Stopped,
    }
}

fn task(status: Status) -> Task {
    let Status { id, op, user, state: how, done, total, start, end, seconds, error } = status;
    Task {
        task_id: id,
        op,
        user,
        state: state(how),
        percent: percent(how, done, total),
        bytes_done: Size(done),
        bytes_total: Size(total),
        rate: Size(rate(done, seconds)),
        start_time: Time(start),
        end_time: end.map(Time),
        error: error.map(|(code, text)| TaskError { code: code.into(), text }),
    }
}

/// Whole percents; 100 means that all is done and nothing else.
fn percent(state: State, done: u64, total: u64) -> u64 {
    if state == State::Done {
        return 100;
    }
    let share = u128::from(done) * 100 / u128::from(total.max(1));
    u64::try_from(share).unwrap_or(99).min(99)
}

/// Bytes per second; a part of a second counts as a whole one.
fn rate(done: u64, seconds: i64) -> u64 {
    done / u64::try_from(seconds).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_whole_and_a_hundred_is_the_end() {
        assert_eq!(percent(State::Running, 0, 0), 0);
        assert_eq!(percent(State::Running, 1, 3), 33);
        assert_eq!(percent(State::Running, 3, 3), 99);
        assert_eq!(percent(State::Failed, u64::MAX, 1), 99);
        assert_eq!(percent(State::Done, 0, 0), 100);
        assert_eq!((rate(100, 10), rate(100, 0), rate(100, -5)), (10, 100, 100));
    }

    #[test]
    fn a_failed_task_says_why() {
        let status = Status {
            id: 3,
            op: "FileManager_FileCopy".into(),
            user: "alice".into(),
            state: State::Failed,
            done: 5,
            total: 10,
            start: 100,
            end: Some(105),
            seconds: 5,
            error: Some((-4, "Permission denied: /x".into())),
        };
        let task = task(status);
        assert_eq!((task.state, task.percent, task.rate), (TaskState::Failed, 50, Size(1)));
        assert_eq!(task.error.unwrap().code, -4);
    }
}
