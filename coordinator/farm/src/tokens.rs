//! Join tokens. Owns who may join, how often and until when. Only a hash of
//! each secret is known here. Never decides what an agent may offer later:
//! the envelope it grants does.

use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::Join;
use farmbell_protocol::bounded::Text;
use farmbell_protocol::digest::Digest;
use farmbell_protocol::time::Wall;
use farmbell_protocol::version::CloseCode;

use crate::effect::{Refused, RefusedCode, Reply};
use crate::farm::Farm;
use crate::ledger::About;
use crate::record::{Change, Envelope, LedgerKind, TokenRecord};

/// A token's number is shown and typed: short, and no secret.
const TOKEN_NUMBER_BITS: u32 = 40;

impl Farm {
    pub(crate) fn create_token(
        &mut self,
        by: &Text<128>,
        uses: u32,
        ttl_ms: u64,
        envelope: Envelope,
        secret_hash: [u8; 32],
    ) -> Result<Reply, Refused> {
        if uses == 0 || ttl_ms == 0 {
            return Err(Refused {
                code: RefusedCode::Invalid,
                cause: "a token without uses or without time could never be used".to_owned(),
                fix: "give it at least one use and some minutes".to_owned(),
            });
        }
        let now = self.clock.now();
        let usable = self
            .tokens
            .values()
            .filter(|token| !token.revoked && token.used < token.uses && token.expires > now)
            .count();
        if usable >= usize::try_from(self.settings.limits.tokens).unwrap_or(usize::MAX) {
            return Err(Refused {
                code: RefusedCode::Limit,
                cause: format!("{usable} tokens can still be used, the limit"),
                fix: "revoke tokens that are not needed (farmbell token revoke)".to_owned(),
            });
        }
        let mut id = 0;
        while id == 0 || self.tokens.contains_key(&id) {
            id = self.random() >> (u64::BITS - TOKEN_NUMBER_BITS);
        }
        let wall = self.clock.wall();
        let token = TokenRecord {
            id,
            secret_hash,
            uses,
            used: 0,
            expires: now + Duration::from_millis(ttl_ms),
            expires_wall: Wall(wall.0.saturating_add(ttl_ms)),
            envelope,
            created_by: by.clone(),
            created: wall,
            revoked: false,
        };
        self.step.changes.push(Change::Token(token.clone()));
        self.tokens.insert(id, token.clone());
        let line = format!("token {id}: {uses} uses within {} s", ttl_ms / 1000);
        self.note(LedgerKind::TokenCreated, About::default().by(by), line);
        Ok(Reply::Token(token))
    }

    pub(crate) fn revoke_token(
        &mut self,
        by: &Text<128>,
        id: u64,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        let Some(token) = self.tokens.get_mut(&id) else {
            return Err(Refused {
                code: RefusedCode::NotFound,
                cause: format!("there is no token {id}"),
                fix: "see farmbell token list".to_owned(),
            });
        };
        token.revoked = true;
        self.step.changes.push(Change::Token(token.clone()));
        self.note(
            LedgerKind::TokenRevoked,
            About::default().by(by),
            format!("token {id}: {why}"),
        );
        Ok(Reply::Done)
    }

    /// The token of this join, if it may be used, and else why not.
    pub(crate) fn redeemable(
        &self,
        join: &Join,
    ) -> Result<&TokenRecord, (CloseCode, &'static str)> {
        const WRONG: (CloseCode, &str) = (
            CloseCode::TokenWrong,
            "no such token, or its secret is wrong: make one with farmbell token create",
        );
        let token = self.tokens.get(&join.token).ok_or(WRONG)?;
        if Digest::of(&join.secret).0 != token.secret_hash {
            return Err(WRONG);
        }
        if token.revoked {
            return Err((
                CloseCode::TokenRevoked,
                "this token was revoked: make one with farmbell token create",
            ));
        }
        if token.expires <= self.clock.now() {
            return Err((
                CloseCode::TokenExpired,
                "this token's time is over: make one with farmbell token create",
            ));
        }
        if token.used >= token.uses {
            return Err((
                CloseCode::TokenUsed,
                "this token was used as often as it allows: make one with farmbell token create",
            ));
        }
        Ok(token)
    }

    pub(crate) fn redeem(&mut self, id: u64) {
        if let Some(token) = self.tokens.get_mut(&id) {
            token.used += 1;
            self.step.changes.push(Change::Token(token.clone()));
        }
    }
}
