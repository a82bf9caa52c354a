//! A routing policy: the signers that may publish each topic.
//!
//! The policy does the same as fedmsg's settings `routing_policy` and `routing_nitpicky`
//! (`fedmsg/crypto/utils.py`, `validate_policy`). It lists topics without wildcards, and for each topic the
//! common names in the certificates of the permitted signers. The check of a signature in `x509` applies it.

use std::collections::{BTreeMap, BTreeSet};

use loopabull_model::Topic;

use crate::SignatureError;

/// The rule for topics that the policy does not list.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Unlisted {
    /// Every signer with a certificate of the CA may publish the topic.
    #[default]
    Accept,
    /// No signer may publish the topic. This is fedmsg's `routing_nitpicky`.
    Refuse,
}

/// The signers that may publish each topic.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RoutingPolicy {
    signers: BTreeMap<Topic, BTreeSet<String>>,
    unlisted: Unlisted,
}

impl RoutingPolicy {
    /// Makes a policy from topics and the common names of their signers. If a topic is listed twice, the
    /// signers of both lists may publish it.
    pub fn new(lines: impl IntoIterator<Item = (Topic, Vec<String>)>, unlisted: Unlisted) -> Self {
        let mut signers: BTreeMap<Topic, BTreeSet<String>> = BTreeMap::new();
        for (topic, names) in lines {
            signers.entry(topic).or_default().extend(names);
        }
        Self { signers, unlisted }
    }

    /// Checks that this signer may publish this topic.
    pub fn check(&self, topic: &Topic, signer: &str) -> Result<(), SignatureError> {
        match (self.signers.get(topic), self.unlisted) {
            (Some(signers), _) if signers.contains(signer) => Ok(()),
            (Some(_), _) => Err(SignatureError::SignerNotAllowed {
                signer: signer.to_owned(),
                topic: topic.to_string(),
            }),
            (None, Unlisted::Accept) => Ok(()),
            (None, Unlisted::Refuse) => {
                Err(SignatureError::TopicNotInPolicy { topic: topic.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::try_from(text).unwrap()
    }

    fn check(unlisted: Unlisted, name: &str, signer: &str, expected: &str) {
        let lines = [
            (topic("a.b"), vec!["one".to_owned(), "two".to_owned()]),
            (topic("a.none"), Vec::new()),
            (topic("a.b"), vec!["three".to_owned()]),
        ];
        let policy = RoutingPolicy::new(lines, unlisted);
        let found = policy.check(&topic(name), signer);
        assert_eq!(found.err().map_or("accepted", |error| error.reason()), expected);
    }

    #[test]
    fn a_listed_topic_is_open_to_its_signers_only() {
        for unlisted in [Unlisted::Accept, Unlisted::Refuse] {
            check(unlisted, "a.b", "two", "accepted");
            check(unlisted, "a.b", "three", "accepted");
            check(unlisted, "a.b", "four", "signer-not-allowed");
            check(unlisted, "a.b", "TWO", "signer-not-allowed");
            check(unlisted, "a.none", "one", "signer-not-allowed");
        }
    }

    #[test]
    fn an_unlisted_topic_is_open_to_all_or_to_none() {
        check(Unlisted::Accept, "a.c", "four", "accepted");
        check(Unlisted::Refuse, "a.c", "one", "topic-not-in-policy");
        check(Unlisted::Refuse, "a.b.c", "one", "topic-not-in-policy");
        check(Unlisted::Refuse, "a", "one", "topic-not-in-policy");
    }

    #[test]
    fn an_empty_policy_accepts_every_signer() {
        assert_eq!(RoutingPolicy::default().check(&topic("a.b"), "one"), Ok(()));
    }
}
