//! Names of users and groups, looked up once per number.
//!
//! A listing of 10 000 files usually has a handful of owners, and a look-up may ask a name service
//! over the network.

use std::collections::HashMap;

/// Names seen during one operation.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// The name of a user, or the number where there is no name. May block.
    pub(crate) fn user(&mut self, uid: u32) -> &str {
        self.users.entry(uid).or_insert_with(|| {
            let user = uzers::get_user_by_uid(uid);
            user.and_then(|user| user.name().to_str().map(str::to_owned)).unwrap_or_else(|| uid.to_string())
        })
    }

    /// The name of a group, or the number where there is no name. May block.
    pub(crate) fn group(&mut self, gid: u32) -> &str {
        self.groups.entry(gid).or_insert_with(|| {
            let group = uzers::get_group_by_gid(gid);
            group
                .and_then(|group| group.name().to_str().map(str::to_owned))
                .unwrap_or_else(|| gid.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_where_they_exist_and_numbers_where_they_do_not() {
        let mut names = Names::default();
        assert_eq!(names.user(0), "root");
        assert_eq!(names.group(0), "root");
        assert_eq!(names.user(3_999_999_999), "3999999999");
        assert_eq!(names.group(3_999_999_999), "3999999999");
    }
}
