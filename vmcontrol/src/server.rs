//! The server object: what is not about one machine.

use std::time::Duration;

use vmcontrol_client::{Connection, DEFAULT_TIMEOUT, Element, Error, ErrorCode, Params, Request};

use crate::object::Body;

/// A server, connected or not.
#[derive(Debug)]
pub struct Server {
    connection: Option<Connection>,
    timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self { connection: None, timeout: DEFAULT_TIMEOUT }
    }
}

impl Body for Server {
    fn abandon(&mut self) {
        self.connection = None;
    }
}

impl Server {
    /// Logs in and reaches the server.
    pub fn connect(&mut self, params: Params) -> Result<(), Error> {
        if self.is_connected() {
            return Err(Error::new(ErrorCode::AlreadyConnected));
        }
        self.connection = None;
        let params = Params { timeout: self.timeout, ..params };
        self.connection = Some(Connection::open(&params)?);
        Ok(())
    }

    /// Closes the connection, if there is one.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Whether there is a connection, as far as is known without asking.
    pub fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_connected)
    }

    /// Sets the longest time of one call, also of the next connect.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
        if let Some(connection) = &mut self.connection {
            connection.set_timeout(timeout);
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, Error> {
        self.connection.as_mut().ok_or_else(|| Error::new(ErrorCode::NotConnected))
    }

    fn call(&mut self, request: &Request) -> Result<Element, Error> {
        self.connection()?.call(request)
    }

    /// Any document, as it is, and its reply, as it is.
    pub fn exec(&mut self, document: &str) -> Result<String, Error> {
        self.connection()?.exec(document)
    }

    /// The paths of all machines that the caller may see.
    pub fn enumerate(&mut self) -> Result<Vec<String>, Error> {
        let out = self.call(&Request::new("VM_List").flag("details", false))?;
        configs(&out)
    }

    /// Whether a machine is registered and the caller may see it.
    pub fn is_registered(&mut self, config: &str) -> Result<bool, Error> {
        let request = Request::new("VM_List").flag("details", false).list("configs", "config", [config]);
        Ok(!configs(&self.call(&request)?)?.is_empty())
    }

    /// A figure of the host.
    pub fn resource(&mut self, name: &str) -> Result<String, Error> {
        let out = self.call(&Request::new("VMServerd_GetResource").text("name", name))?;
        out.need("value").map(str::to_owned)
    }

    /// Sets a figure of the host.
    pub fn set_resource(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let request = Request::new("VMServerd_SetResource").text("name", name).text("value", value);
        self.call(&request).map(drop)
    }

    /// Registers a machine.
    pub fn register(&mut self, config: &str) -> Result<(), Error> {
        self.call(&Request::new("VMRegister").text("config", config)).map(drop)
    }

    /// Takes a machine off the list.
    pub fn unregister(&mut self, config: &str) -> Result<(), Error> {
        self.call(&Request::new("VMUnRegister").text("config", config)).map(drop)
    }
}

fn configs(out: &Element) -> Result<Vec<String>, Error> {
    out.list("vms", "vm").map(|vm| vm.need("config").map(str::to_owned)).collect()
}
