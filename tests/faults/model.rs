//! What must be in Keycloak, whatever happened: for each person and each role or group, what an administrator did about it
//! and which requests are about it.

use std::collections::{BTreeMap, BTreeSet};

/// A person and a role or group, by their numbers.
pub type Pair = (usize, usize);

/// What a request is about.
#[derive(Clone, Debug)]
pub struct Asked {
    pub name: String,
    pub person: usize,
    pub things: Vec<usize>,
}

/// What is known.
#[derive(Default)]
pub struct Model {
    pub asked: Vec<Asked>,
    /// Whether the administrator wants it there. `None`: it was mapped by hand while a request for it was open, and ends with
    /// the access or not.
    wanted: BTreeMap<Pair, Option<bool>>,
}

impl Model {
    /// Whether a request that is not over is about this pair.
    fn is_open(&self, pair: Pair, open: &BTreeSet<String>) -> bool {
        self.asked
            .iter()
            .any(|asked| asked.person == pair.0 && asked.things.contains(&pair.1) && open.contains(&asked.name))
    }

    /// An administrator maps it, while these requests are open.
    pub fn mapped(&mut self, pair: Pair, open: &BTreeSet<String>) {
        let clear = !self.is_open(pair, open) || self.wanted.get(&pair) == Some(&Some(true));
        self.wanted.insert(pair, clear.then_some(true));
    }

    /// An administrator takes it away. Whatever of ours is there goes with its request.
    pub fn unmapped(&mut self, pair: Pair) {
        self.wanted.insert(pair, Some(false));
    }

    /// What is wrong with what a person has, while these requests are open.
    pub fn complaints(
        &self,
        person: usize,
        has: &BTreeSet<usize>,
        things: usize,
        open: &BTreeSet<String>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        for thing in 0..things {
            let pair = (person, thing);
            match self.wanted.get(&pair).copied().unwrap_or(Some(false)) {
                Some(true) if !has.contains(&thing) => {
                    wrong.push(format!("person {person} has lost thing {thing}, which an administrator gave"));
                }
                Some(false) if has.contains(&thing) && !self.is_open(pair, open) => {
                    wrong.push(format!("person {person} has thing {thing}, and no request for it is open"));
                }
                Some(_) | None => {}
            }
        }
        wrong
    }
}
