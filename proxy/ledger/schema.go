package ledger

import (
	"database/sql"
	"fmt"
)

// migrations take the file from version i to i+1 (SQLite's user_version). A
// released one is never edited: a change of the schema is a new entry.
var migrations = []string{`
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

-- One payment channel. seed is the Ed25519 seed of its client key.
CREATE TABLE channels (
	address     BLOB PRIMARY KEY,
	worker_id   BLOB NOT NULL,
	seed        BLOB NOT NULL,
	nonce       BLOB NOT NULL,
	client      BLOB NOT NULL,
	payout      BLOB NOT NULL,
	redeemer    BLOB NOT NULL,
	close_delay INTEGER NOT NULL,
	global_id   INTEGER NOT NULL,
	deposit     INTEGER NOT NULL, -- nano, what its opening sends
	created     INTEGER NOT NULL, -- Unix seconds
	closed      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX channels_worker ON channels (worker_id);

-- Every voucher that was ever signed, so that an own one is known again.
CREATE TABLE vouchers (
	id         INTEGER PRIMARY KEY,
	channel    BLOB NOT NULL,
	cumulative INTEGER NOT NULL, -- nano
	head       BLOB NOT NULL,
	log_id     BLOB NOT NULL,
	count      INTEGER NOT NULL, -- receipts of that log under the head
	UNIQUE (channel, cumulative, head)
) STRICT;

-- One boot of a worker, as a channel met it.
CREATE TABLE logs (
	channel  BLOB NOT NULL,
	log_id   BLOB NOT NULL,
	seq      INTEGER NOT NULL, -- rises with every new log of the channel
	base     BLOB NOT NULL,    -- head of the voucher counted as spent at boot, or zeros
	floor    INTEGER NOT NULL, -- nano spent before this log
	PRIMARY KEY (channel, log_id)
) STRICT, WITHOUT ROWID;

-- Jobs that may still be billed, with what was granted to each.
CREATE TABLE jobs (
	job_id  BLOB PRIMARY KEY,
	channel BLOB NOT NULL,
	log_id  BLOB NOT NULL,
	granted INTEGER NOT NULL, -- nano
	ceiling INTEGER NOT NULL, -- nano that it may cost in total
	opened  INTEGER NOT NULL  -- Unix seconds
) STRICT, WITHOUT ROWID;

CREATE TABLE receipts (
	channel  BLOB NOT NULL,
	log_id   BLOB NOT NULL,
	idx      INTEGER NOT NULL,
	job_id   BLOB NOT NULL,
	cost     INTEGER NOT NULL, -- nano
	model    TEXT NOT NULL,
	status   TEXT NOT NULL,
	finished INTEGER NOT NULL, -- Unix milliseconds
	cose     BLOB NOT NULL,
	PRIMARY KEY (channel, log_id, idx)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipts_job ON receipts (job_id);
CREATE INDEX receipts_finished ON receipts (finished);

-- Keysets that were verified, so that receipts which come late can be too.
CREATE TABLE keysets (
	digest BLOB PRIMARY KEY,
	keyset BLOB NOT NULL -- canonical CBOR
) STRICT, WITHOUT ROWID;
`}

// migrate brings the file to this program's version. A newer file is refused.
func migrate(db *sql.DB) error {
	var have int
	if err := db.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return fmt.Errorf("schema version: %w", err)
	}
	if have > len(migrations) {
		return fmt.Errorf("schema version: got %d, want at most %d: it was written by a newer program", have, len(migrations))
	}
	for v := have; v < len(migrations); v++ {
		tx, err := db.Begin()
		if err != nil {
			return fmt.Errorf("schema version %d: %w", v+1, err)
		}
		if _, err := tx.Exec(migrations[v] + fmt.Sprintf("; PRAGMA user_version = %d", v+1)); err != nil {
			tx.Rollback()
			return fmt.Errorf("schema version %d: %w", v+1, err)
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("schema version %d: %w", v+1, err)
		}
	}
	return nil
}
