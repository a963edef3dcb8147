//! Paths and queries of the Admin API. Knows nothing of what they mean.
//!
//! Keycloak 26.7.3 answers 400 both to an escaped unreserved character (`%2D`: "missingNormalization") and to a raw
//! reserved one, so exactly everything outside `A-Za-z0-9-._~` is escaped.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::{Error, Kind};

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path below the realm, every part escaped.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(String);

impl Path {
    /// Joins the parts. An empty part would address the collection instead of a thing in it, `.` and `..` something
    /// else altogether: neither is ever sent.
    pub(super) fn of(parts: &[&str]) -> Result<Self, Error> {
        let mut path = String::new();
        for part in parts {
            if !addressable(part) {
                return Err(Error::new(Kind::InvalidInput, "none", format!("{part:?} cannot be part of a URL's path")));
            }
            path.push('/');
            path.extend(utf8_percent_encode(part, RESERVED));
        }
        Ok(Self(path))
    }

    /// Adds a query.
    pub(super) fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        for (key, value) in pairs {
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0.push_str(key);
            self.0.push('=');
            self.0.extend(utf8_percent_encode(value, RESERVED));
        }
        self
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether Keycloak can be asked for this by path.
pub(super) fn addressable(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
}

/// Escapes one part of a URL.
pub(super) fn escape(part: &str) -> String {
    utf8_percent_encode(part, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_unreserved_characters_is_escaped() {
        let path = Path::of(&["roles", "a b/c;d%e#f?g+h'~.-_é"]).expect("addressable").query(&[("search", "a&b=c +")]);
        assert_eq!(path.as_str(), "/roles/a%20b%2Fc%3Bd%25e%23f%3Fg%2Bh%27~.-_%C3%A9?search=a%26b%3Dc%20%2B");
    }

    #[test]
    fn a_part_that_addresses_something_else_is_refused() {
        for part in ["", ".", ".."] {
            let error = Path::of(&["users", part, "role-mappings"]).expect_err("must be refused");
            assert_eq!(error.kind(), Kind::InvalidInput);
        }
    }
}
