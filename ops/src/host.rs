//! `Host_Get*Net`: the virtual networks of the host.

use ops_derive::{Fragment, Op, Reply};

crate::words! {
    /// How a virtual network is connected to others.
    pub enum NetworkType {
        /// To the network of an interface of the host.
        Bridged = "bridged",
        /// To the host alone.
        HostOnly = "hostonly",
        /// To the host, and through it, with its address, to everything else.
        Nat = "nat",
    }
}

/// A virtual network.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Network {
    /// A name for people.
    pub name: String,
    /// Its device, such as `vmnet0`, or the name of the host's bridge.
    pub device: String,
    /// `bridged`, `hostonly` or `nat`.
    #[field(name = "type")]
    pub kind: NetworkType,
    /// Bridged: the interface of the host that it is connected to, where one is.
    pub interface: Option<String>,
    /// Others: the host's address in it, where it has one.
    pub address: Option<String>,
    /// The mask of that address.
    pub netmask: Option<String>,
    /// Whether the product gives out addresses there.
    pub dhcp: Option<bool>,
    /// NAT: the way out for its machines, where it is known.
    pub gateway: Option<String>,
}

/// Virtual networks.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct NetworksReply {
    /// One for each network, by the number or the name of its device.
    #[field(list = "networks/network")]
    pub networks: Vec<Network>,
}

/// Lists the bridged networks.
///
/// From the product's files `netmap.conf`, `config` and `locations` where they tell of any virtual
/// network, else from the bridges of the host.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "Host_GetBridgedNet", handler = "Handlers::Host_GetBridgedNet_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = NetworksReply)]
pub struct GetBridgedNet {}

/// Lists the networks between machines and the host alone.
///
/// From the same sources as the bridged ones.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "Host_GetHostOnlyNet", handler = "Handlers::Host_GetHostOnlyNet_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = NetworksReply)]
pub struct GetHostOnlyNet {}

/// Lists all virtual networks.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "Host_GetVirtualNet", handler = "Handlers::Host_GetVirtualNet_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = NetworksReply)]
pub struct GetVirtualNet {}
