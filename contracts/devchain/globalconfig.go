package devchain

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"

	"github.com/xssnick/tonutils-go/liteclient"
	"github.com/xssnick/tonutils-go/ton"
)

// GlobalConfig is the network's description as TON publishes them
// (global.config.json): the liteserver at addr, and the first block to trust.
// addr is an IPv4 TCP address, as the format has no room for others.
func (c *Chain) GlobalConfig(addr net.Addr) ([]byte, error) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || tcp.IP.To4() == nil {
		return nil, fmt.Errorf("devchain: liteserver address: got %v, want IPv4 over TCP", addr)
	}
	c.mu.RLock()
	first := c.blocks[1].master.id
	c.mu.RUnlock()
	type server struct {
		IP   int32             `json:"ip"`
		Port int               `json:"port"`
		ID   map[string]string `json:"id"`
	}
	return json.MarshalIndent(struct {
		Type        string                     `json:"@type"`
		Liteservers []server                   `json:"liteservers"`
		Validator   liteclient.ValidatorConfig `json:"validator"`
	}{
		Type: "config.global",
		Liteservers: []server{{
			IP: int32(binary.BigEndian.Uint32(tcp.IP.To4())), Port: tcp.Port,
			ID: map[string]string{"@type": "pub.ed25519", "key": base64.StdEncoding.EncodeToString(c.keys.liteserver.Public().(ed25519.PublicKey))},
		}},
		Validator: liteclient.ValidatorConfig{
			Type: "validator.config.global", ZeroState: configBlock(first), InitBlock: configBlock(first), Hardforks: []liteclient.ConfigBlock{},
		},
	}, "", "  ")
}

func configBlock(id *ton.BlockIDExt) liteclient.ConfigBlock {
	return liteclient.ConfigBlock{Workchain: id.Workchain, Shard: id.Shard, SeqNo: id.SeqNo, RootHash: id.RootHash, FileHash: id.FileHash}
}
