package lite_test

import "cocoon/attestation"

// These mirror the wire forms, so that a change of them fails a test.

type wireBeacon struct {
	Version uint64   `cbor:"version"`
	Link    wireLink `cbor:"link"`
}

type wireBlock struct {
	Seqno    uint32   `cbor:"seqno"`
	RootHash [32]byte `cbor:"root_hash"`
	FileHash [32]byte `cbor:"file_hash"`
}

type wireLink struct {
	Key        wireBlock      `cbor:"key"`
	To         wireBlock      `cbor:"to"`
	Header     []byte         `cbor:"header"`
	Config     []byte         `cbor:"config"`
	Signatures wireSignatures `cbor:"signatures"`
}

type wireSignatures struct {
	Simplex          bool            `cbor:"simplex"`
	ValidatorSetHash uint32          `cbor:"validator_set_hash"`
	CatchainSeqno    uint32          `cbor:"catchain_seqno"`
	List             []wireSignature `cbor:"list"`
	SessionID        [32]byte        `cbor:"session_id"`
	Slot             int32           `cbor:"slot"`
	Candidate        []byte          `cbor:"candidate"`
}

type wireSignature struct {
	Node      [32]byte `cbor:"node"`
	Signature [64]byte `cbor:"signature"`
}

type wireSnapshot struct {
	Version  uint64        `cbor:"version"`
	Links    []wireLink    `cbor:"links"`
	Accounts []wireAccount `cbor:"accounts"`
}

type wireAccount struct {
	Proof        wireProof `cbor:"proof"`
	Transactions [][]byte  `cbor:"transactions"`
}

type wireProof struct {
	Address    attestation.Address `cbor:"address"`
	Shard      wireShard           `cbor:"shard"`
	ShardProof []byte              `cbor:"shard_proof"`
	Proof      []byte              `cbor:"proof"`
	State      []byte              `cbor:"state"`
}

type wireShard struct {
	Shard    int64    `cbor:"shard"`
	Seqno    uint32   `cbor:"seqno"`
	RootHash [32]byte `cbor:"root_hash"`
	FileHash [32]byte `cbor:"file_hash"`
}
