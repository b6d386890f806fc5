//! Bugs of the model, to be planted: what a store or a bus could get wrong.
//!
//! The checker must see each of them; otherwise that it is silent about the worker means nothing.

/// What the model does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Whoever ever held an entry may settle it.
    NoOwnerCheck,
    /// What a run read is not compared.
    NoReadCheck,
    /// Who holds an idempotency key is not looked at.
    NoRecordCheck,
    /// A repeated settle is applied again.
    AppliesAgain,
    /// An entry counts as handled when it is received.
    AcknowledgesFirst,
    /// What is given back is gone.
    LosesGivenBack,
    /// Every eighth piece of delayed work is gone.
    LosesDelayed,
    /// Every eighth settle writes state and forgets the events.
    HalfEffects,
    /// A retry forgets that it counted.
    ForgetsAttempts,
    /// A retry counts twice.
    CountsTwice,
    /// What the dead held stays theirs.
    NeverTakesOver,
    /// What a living process holds is taken as if it was dead.
    ClaimsFromTheLiving,
    /// Every death is charged, marked or not.
    ChargesEverybody,
    /// No death is charged.
    ChargesNobody,
    /// Dead letters do not say why.
    SilentLetters,
    /// A settle that is late writes its effects into a store that was reset.
    OutlivesReset,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::NoOwnerCheck,
        Self::NoReadCheck,
        Self::NoRecordCheck,
        Self::AppliesAgain,
        Self::AcknowledgesFirst,
        Self::LosesGivenBack,
        Self::LosesDelayed,
        Self::HalfEffects,
        Self::ForgetsAttempts,
        Self::CountsTwice,
        Self::NeverTakesOver,
        Self::ClaimsFromTheLiving,
        Self::ChargesEverybody,
        Self::ChargesNobody,
        Self::SilentLetters,
        Self::OutlivesReset,
    ];
}
