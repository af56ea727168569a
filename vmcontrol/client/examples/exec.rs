//! Sends the document on standard input to the server of this machine and prints the reply.

use std::io::Read;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut document = String::new();
    std::io::stdin().read_to_string(&mut document)?;
    let mut server = vmcontrol_client::Connection::open(&vmcontrol_client::Params::default())?;
    println!("{}", server.exec(&document)?);
    Ok(())
}
