//! The one module that talks to the server: everything goes through `vmcontrol-client`.

use std::time::Instant;

use vmcontrol_client::{Connection, Element, Error, Params, Reply, Request};

use crate::failure::Failure;
use crate::grammar::Options;
use crate::output::say;
use crate::password;

/// A session with the server.
#[derive(Debug)]
pub(crate) struct Server {
    connection: Connection,
    verbose: bool,
}

/// What the options say about where to connect, and as whom.
///
/// # Errors
/// When there is no way to a password that is needed.
pub(crate) fn params(options: &Options) -> Result<Params, Failure> {
    let mut params = Params {
        host: options.host.clone(),
        port: options.port,
        user: options.user.clone(),
        password: password::find(options)?,
        root: options.root.clone(),
        ..Params::default()
    };
    params.timeout = options.timeout.unwrap_or(params.timeout);
    Ok(params)
}

impl Server {
    /// Connects and logs in.
    ///
    /// # Errors
    /// As the client says it; `-v` tells on standard error what happens.
    pub fn open(params: &Params, verbose: bool) -> Result<Self, Error> {
        let start = Instant::now();
        if verbose {
            let host = params.host.as_deref().unwrap_or("this machine");
            let user = params.user.as_deref().unwrap_or("the owner of this process");
            say(&format!("vmware-cmd: connecting to {host} as {user}"));
        }
        let connection = Connection::open(params)?;
        if verbose {
            say(&format!("vmware-cmd: connected after {:.1} ms", start.elapsed().as_secs_f64() * 1e3));
        }
        Ok(Server { connection, verbose })
    }

    /// Connects as the options say, for whatever is not about one machine.
    ///
    /// # Errors
    /// [`Failure::Server`], or no password.
    pub fn of(options: &Options) -> Result<Self, Failure> {
        Self::open(&params(options)?, options.verbose).map_err(Failure::Server)
    }

    /// Asks for an operation; the contents of `out`. Warnings go to standard error.
    ///
    /// # Errors
    /// What the reply reports, or that there was none.
    pub fn call(&mut self, request: &Request) -> Result<Element, Error> {
        let Reply { error, warnings, out, .. } =
            self.timed(request.operation(), |connection| connection.reply(request))?;
        for warning in warnings {
            say(&format!("Warning: {warning}"));
        }
        match error {
            Some(error) => Err(error),
            None => Ok(out),
        }
    }

    /// Sends a document as it is; the reply as it is.
    ///
    /// # Errors
    /// When there was no reply.
    pub fn exec(&mut self, document: &str) -> Result<String, Error> {
        self.timed("exec", |connection| connection.exec(document))
    }

    fn timed<T>(
        &mut self,
        what: &str,
        ask: impl FnOnce(&mut Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let result = ask(&mut self.connection);
        if self.verbose {
            let how = if result.is_ok() { "answered" } else { "not answered" };
            say(&format!("vmware-cmd: {what} {how} after {:.1} ms", start.elapsed().as_secs_f64() * 1e3));
        }
        result
    }
}
