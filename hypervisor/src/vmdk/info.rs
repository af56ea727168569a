//! What is known of an open disk, for listings.

use std::path::PathBuf;

use super::geometry::{Adapter, Geometry};
use super::layer::Layer;

/// A disk and its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Sectors.
    pub capacity: u64,
    /// The adapter it was made for, if its descriptor says so in a known word.
    pub adapter: Option<Adapter>,
    /// The geometry in its descriptor, if there is one.
    pub geometry: Option<Geometry>,
    /// The disk itself, its parent, and so on.
    pub layers: Vec<LayerInfo>,
}

/// One disk of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// The file with its descriptor.
    pub path: PathBuf,
    /// `createType`, as written.
    pub create_type: String,
    /// Its CID now.
    pub cid: u32,
    /// The CID its parent had when it was made.
    pub parent_cid: Option<u32>,
    /// Its extents, in the order of their sectors.
    pub extents: Vec<ExtentInfo>,
}

/// One extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentInfo {
    /// Its file; None where it has none.
    pub path: Option<PathBuf>,
    /// Its part of the capacity, in sectors.
    pub sectors: u64,
    /// Sectors of a grain, for those with tables.
    pub grain: Option<u64>,
    /// Compressed: can only be read.
    pub compressed: bool,
    /// Was not closed after its last writing.
    pub unclean: bool,
}

impl Info {
    pub(crate) fn of(layers: &[Layer]) -> Self {
        let top = layers.first();
        Info {
            capacity: top.map_or(0, |layer| layer.capacity),
            adapter: top.and_then(|layer| layer.found.descriptor.adapter()),
            geometry: top.and_then(|layer| layer.found.descriptor.geometry()),
            layers: layers.iter().map(LayerInfo::of).collect(),
        }
    }
}

impl LayerInfo {
    fn of(layer: &Layer) -> Self {
        let descriptor = &layer.found.descriptor;
        let extents = layer.extents.iter().map(|extent| ExtentInfo {
            path: extent.part().map(|part| part.path().to_owned()),
            sectors: extent.sectors,
            grain: extent.grain(),
            compressed: extent.is_compressed(),
            unclean: extent.is_unclean(),
        });
        LayerInfo {
            path: layer.found.part.path().to_owned(),
            create_type: descriptor.create_type.clone(),
            cid: descriptor.cid,
            parent_cid: descriptor.parent_cid,
            extents: extents.collect(),
        }
    }
}
