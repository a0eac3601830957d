//! Bugs that systems like this one have had, each switched on by its name in `BATON_MUTANT`: tests of the tests. With the
//! feature `testbed` only; without it [`mutant!`] is the constant `false`, and nothing of this is in the program.
//!
//! `make mutants` shows which layer of tests finds each of them.

/// True where the mutant of this name is switched on.
macro_rules! mutant {
    ($name:ident) => {{
        #[cfg(feature = "testbed")]
        let is_on = $crate::mutant::is_on($crate::mutant::Mutant::$name);
        #[cfg(not(feature = "testbed"))]
        let is_on = false;
        is_on
    }};
}

#[cfg(feature = "testbed")]
pub use self::switch::{Mutant, is_on};

#[cfg(feature = "testbed")]
mod switch {
    use std::sync::OnceLock;

    /// A bug.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Mutant {
        /// Pods are counted in a cache that our own writes have not reached yet (kuberay#715).
        StaleCounts,
        /// Pods get names from the API server, so that a repeated create is another Pod.
        GenerateName,
        /// Deletes name a Pod and not its uid (cassandra-operator#402).
        DeleteWithoutUid,
        /// What was awaited for too long is taken as seen (kubernetes#129795).
        ExpectationsExpire,
        /// A revision is hashed as the types of our client see it: fields they do not know are lost (argo-rollouts#4696).
        HashOfTypes,
        /// The stable revision is what status says, not what completed.
        StatusObeyed,
        /// A delete without an answer is neither looked after nor planned again (argo-rollouts#3316).
        LostDelete,
        /// HTTP 410 ends a watch for good (kube#1042).
        GoneFreezes,
        /// A create without an answer is sent again (Agones#607).
        RetriedPost,
        /// A lost Pod comes back at the newest revision (controller-mesh#38).
        RefillAtNewest,
        /// Terminating Pods do not count in the total.
        TerminatingNotCounted,
        /// A leader writes after its lease has run out (kubernetes#44887).
        WritesAfterLease,
        /// A container that was given another image is believed to run it although it is still the same container.
        OldContainerBelieved,
        /// A pin that names an instance beyond replicas is no pin of the others either.
        PinLostOnScaleDown,
        /// A pause after the last batch is dropped.
        LastPauseDropped,
        /// At the progress deadline instances that still wait for the version are blamed, too.
        BlamesWaiting,
        /// A version completes where no instance is asked for.
        CompletesUnseen,
        /// What has stopped may be started again under the same epoch.
        NoTombstone,
        /// Listeners of a silent Pod are taken without its session being fenced.
        StealsFromSilent,
        /// Guards are told to kill 20 s late.
        KillsLate,
        /// An end that the container runtime has not seen proves that the processes have ended.
        UnseenEndProves,
        /// A session that cannot be read counts as one that is missing.
        UnreadableIsMissing,
    }

    impl Mutant {
        /// All of them.
        pub const ALL: [Self; 22] = [
            Self::StaleCounts,
            Self::GenerateName,
            Self::DeleteWithoutUid,
            Self::ExpectationsExpire,
            Self::HashOfTypes,
            Self::StatusObeyed,
            Self::LostDelete,
            Self::GoneFreezes,
            Self::RetriedPost,
            Self::RefillAtNewest,
            Self::TerminatingNotCounted,
            Self::WritesAfterLease,
            Self::OldContainerBelieved,
            Self::PinLostOnScaleDown,
            Self::LastPauseDropped,
            Self::BlamesWaiting,
            Self::CompletesUnseen,
            Self::NoTombstone,
            Self::StealsFromSilent,
            Self::KillsLate,
            Self::UnseenEndProves,
            Self::UnreadableIsMissing,
        ];
    }

    /// Whether this one was switched on when it was first asked about any.
    ///
    /// # Panics
    /// When `BATON_MUTANT` is the name of none.
    pub fn is_on(mutant: Mutant) -> bool {
        static ON: OnceLock<Option<Mutant>> = OnceLock::new();
        let on = ON.get_or_init(|| {
            let name = std::env::var("BATON_MUTANT").ok().filter(|name| !name.is_empty())?;
            let found = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
            assert!(found.is_some(), "BATON_MUTANT={name} is none of {:?}", Mutant::ALL);
            found
        });
        *on == Some(mutant)
    }
}
