//! The report as people read it.

use std::fmt;

use super::{Report, Standing};
use crate::api::TargetType;

const TITLES: [&str; 7] = ["REALM", "TYPE", "NAME", "USER", "SINCE", "BY", "POLICIES"];

fn row(standing: &Standing) -> [String; 7] {
    let Standing { realm, type_, name, username, user_id: _, enabled, since, by, policies } = standing;
    let type_ = match type_ {
        TargetType::RealmRole => "realm role",
        TargetType::ClientRole => "client role",
        TargetType::Group => "group",
    };
    let user = if *enabled { username.clone() } else { format!("{username} (disabled)") };
    let since = since.map(|since| since.to_string()).unwrap_or_default();
    [realm.clone(), type_.into(), name.clone(), user, since, by.clone().unwrap_or_default(), policies.join(",")]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.standing.is_empty() {
            writeln!(f, "no standing access")?;
        } else {
            let rows: Vec<[String; 7]> =
                std::iter::once(TITLES.map(str::to_owned)).chain(self.standing.iter().map(row)).collect();
            let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            let widths: [usize; 7] = std::array::from_fn(width);
            for row in &rows {
                let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
                writeln!(f, "{}", cells.collect::<Vec<_>>().join("   ").trim_end())?;
            }
        }
        for missing in &self.missing {
            writeln!(f, "not looked at: {missing}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_what_is_missing_is_said() {
        let standing = |username: &str, enabled, by: Option<&str>| Standing {
            realm: "prod".into(),
            type_: TargetType::RealmRole,
            name: "admin".into(),
            username: username.into(),
            user_id: "u".into(),
            enabled,
            since: by.map(|_| jiff::Timestamp::UNIX_EPOCH),
            by: by.map(ToOwned::to_owned),
            policies: vec!["a".into(), "b".into()],
        };
        let mut report = Report {
            standing: vec![standing("alice", true, Some("root")), standing("bob", false, None)],
            missing: vec!["realm other: away".into()],
            notes: Vec::new(),
        };
        let text = "REALM   TYPE         NAME    USER             SINCE                  BY     POLICIES\n\
                    prod    realm role   admin   alice            1970-01-01T00:00:00Z   root   a,b\n\
                    prod    realm role   admin   bob (disabled)                                 a,b\n\
                    not looked at: realm other: away\n";
        assert_eq!(report.to_string(), text);
        report.standing.clear();
        assert_eq!(report.to_string(), "no standing access\nnot looked at: realm other: away\n");
    }
}
