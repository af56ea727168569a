//! `answer`: shows the question of a machine and takes the number of a choice from standard input.
//!
//! ```text
//!   Question (id = 0) :<text>
//!   <TAB>0) Cancel
//!   <TAB>1) I moved it
//!   Select choice. Press enter for default <0> : 1
//!   selected 1 : I moved it
//! ```

use std::io::{BufRead, IsTerminal};

use serde_json::json;
use vmcontrol_client::Error;

use crate::actions::Machine;
use crate::failure::Failure;
use crate::grammar::Options;
use crate::output::Output;

/// Longest line that is taken for a number.
const MAX_LINE: u64 = 1024;

/// Runs the dialogue. With `--json`, and with `-q` where nobody looks, nothing is printed before the answer
/// has been given.
pub(crate) fn run(machine: &mut Machine, options: &Options, output: &mut Output) -> Result<(), Failure> {
    let out = machine.call("VM_GetQuestion", |request| request)?;
    let Some(question) = out.child("question") else {
        return Err(Failure::Said("No questions pending.".to_owned()));
    };
    let id: i64 = question.number("id")?;
    let usual: usize = question.number("defaultChoice")?;
    let choices: Vec<&str> =
        question.list("choices", "choice").map(|choice| choice.content.as_str()).collect();
    let input = std::io::stdin();
    let silent = output.json || (options.quiet && !input.is_terminal());
    if !silent {
        output.line(&format!("Question (id = {id}) :{}", question.need("text")?));
        for (number, choice) in choices.iter().enumerate() {
            output.line(&format!("\t{number}) {choice}"));
        }
        output.text(&format!("Select choice. Press enter for default <{usual}> : "));
        // On a terminal the Enter key ends the line.
        if !input.is_terminal() {
            output.text("\n");
        }
        output.flush()?;
    }
    let mut line = String::new();
    let read = std::io::Read::take(input.lock(), MAX_LINE).read_line(&mut line);
    match read {
        Ok(0) => return Err(Failure::Said("No answer: standard input is empty.".to_owned())),
        Ok(_) => {}
        Err(error) => return Err(Failure::Said(format!("cannot read standard input: {error}"))),
    }
    let (number, choice) = choose(&line, usual, &choices)?;
    let number_sent = i64::try_from(number).unwrap_or(i64::MAX);
    machine.call("VM_AnswerQuestion", |request| request.number("id", id).number("choice", number_sent))?;
    if output.json {
        output.document(&json!({
            "ok": true, "action": "answer", "arguments": [], "value": number, "choice": choice,
        }));
    } else if silent {
        output.line("1");
    } else {
        output.line(&format!("selected {number} : {choice}"));
    }
    Ok(())
}

/// The choice that a line means.
fn choose<'a>(line: &str, usual: usize, choices: &[&'a str]) -> Result<(usize, &'a str), Error> {
    let typed = line.trim();
    let number = if typed.is_empty() { Some(usual) } else { typed.parse().ok() };
    let found = number.and_then(|number| Some((number, *choices.get(number)?)));
    let last = choices.len().saturating_sub(1);
    found.ok_or_else(|| Error::invalid("choice", format_args!("{typed} is no number from 0 to {last}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_choice() {
        let choices = ["Cancel", "I moved it"];
        for (line, number) in [("1\n", 1), (" 0 \n", 0), ("\n", 1), ("\r\n", 1), ("1", 1)] {
            assert_eq!(choose(line, 1, &choices).unwrap(), (number, choices[number]), "{line:?}");
        }
        for line in ["2\n", "-1\n", "one\n", "99999999999999999999\n"] {
            let error = choose(line, 1, &choices).unwrap_err();
            assert!(error.text.ends_with("is no number from 0 to 1"), "{}", error.text);
        }
        assert!(choose("\n", 7, &choices).is_err(), "a default that is no choice");
    }
}
