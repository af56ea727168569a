//! `Directory_*`: one directory at a time.

use handlers_derive::handler;
use ops::Error;
use ops::directory::{
    GetSpaceUsage, GetSpaceUsageReply, List, ListReply, Make, MakeReply, Remove, RemoveReply,
};
use ops::value::Size;

use crate::file_manager::new_directory_mode;
use crate::{Ctx, entries, place, remove, space, tree};

/// Adds up what is below.
#[handler]
fn get_space_usage(_: &Ctx, req: GetSpaceUsage) -> Result<GetSpaceUsageReply, Error> {
    let space = space::usage(req.directory.as_str())?;
    Ok(GetSpaceUsageReply {
        directory: req.directory,
        size: Size(space.bytes),
        files: space.files,
        directories: space.directories,
        warnings: space.warnings.into_texts(),
    })
}

/// The entries with their facts.
#[handler]
fn list(_: &Ctx, req: List) -> Result<ListReply, Error> {
    let entries = entries::list(&req.directory, true)?;
    Ok(ListReply { directory: req.directory, entries })
}

/// Makes it, with its parents when asked.
#[handler]
fn make(_: &Ctx, req: Make) -> Result<MakeReply, Error> {
    let (path, mode) = (req.directory.as_str(), new_directory_mode(req.modes));
    let made = match req.make_parents {
        true => tree::make_with_parents(path, mode, |_| {}),
        false => tree::make_directory(path, mode),
    };
    made.map_err(place::at(path))?;
    Ok(MakeReply { directory: req.directory })
}

/// Removes it, with what is in it when asked.
#[handler]
fn remove_one(_: &Ctx, req: Remove) -> Result<RemoveReply, Error> {
    remove::directory(req.directory.as_str(), req.recursive)?;
    Ok(RemoveReply { directory: req.directory })
}
