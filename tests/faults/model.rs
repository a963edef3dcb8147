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

/// Names of requests at one moment.
#[derive(Default)]
pub struct Requests {
    /// They are not over.
    pub open: BTreeSet<String>,
    /// They are Active, and nothing ends them yet.
    pub held: BTreeSet<String>,
}

/// What is known.
#[derive(Default)]
pub struct Model {
    pub asked: Vec<Asked>,
    /// What an administrator took from a request, by its name.
    taken: BTreeSet<(String, usize)>,
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
        let of = self.asked.iter().filter(|asked| asked.person == pair.0);
        self.taken.extend(of.map(|asked| (asked.name.clone(), pair.1)));
        self.wanted.insert(pair, Some(false));
    }

    /// What these requests hold for a person: each with a thing that must be there.
    pub fn holds(&self, person: usize, held: &BTreeSet<String>) -> Vec<(&str, usize)> {
        let asked = self.asked.iter().filter(|asked| asked.person == person && held.contains(&asked.name));
        let all = asked.flat_map(|asked| asked.things.iter().map(|thing| (asked.name.as_str(), *thing)));
        all.filter(|(name, thing)| !self.taken.contains(&((*name).to_owned(), *thing))).collect()
    }

    /// What is wrong with what a person has, while these are the requests.
    pub fn complaints(
        &self,
        person: usize,
        has: &BTreeSet<usize>,
        things: usize,
        Requests { open, held }: &Requests,
    ) -> Vec<String> {
        let lost = self.holds(person, held).into_iter().filter(|(_, thing)| !has.contains(thing));
        let mut wrong: Vec<String> =
            lost.map(|(name, thing)| format!("person {person} lacks thing {thing}, and {name} is Active")).collect();
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
