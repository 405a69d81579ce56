package devchain

import (
	"math/big"

	"github.com/xssnick/tonutils-go/tl"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton"
	"github.com/xssnick/tonutils-go/tvm"
	"github.com/xssnick/tonutils-go/tvm/cell"
	"github.com/xssnick/tonutils-go/tvm/tuple"
	"github.com/xssnick/tonutils-go/tvm/vm"
)

const getMethodGas = 1_000_000

// runMethod runs a get-method on the state at a block. Nothing proves such an
// answer on TON: clients of value parse proven state instead.
func (c *Chain) runMethod(q ton.RunSmcMethod) (tl.Serializable, error) {
	v, err := c.view(q.ID, q.Account)
	if err != nil {
		return nil, err
	}
	notActive := ton.LSError{Code: codeNotActive, Text: "contract is not initialized"}
	if v.account == nil {
		return nil, notActive
	}
	var state tlb.AccountState
	if err := tlb.Parse(&state, v.account.Account); err != nil {
		return nil, err
	}
	if state.Status != tlb.AccountStatusActive {
		return nil, notActive
	}
	stack, err := methodStack(q)
	if err != nil {
		return nil, ton.LSError{Code: codeFailed, Text: err.Error()}
	}
	c7, err := c.registers(v, &state)
	if err != nil {
		return nil, err
	}
	res, err := tvm.NewTVM().ExecuteGetMethod(state.StateInit.Code, state.StateInit.Data, c7, vm.GasWithLimit(getMethodGas), stack, tvm.ExecutionConfig{Config: c.network.prepared})
	if err != nil {
		return nil, ton.LSError{Code: codeFailed, Text: err.Error()}
	}
	out, err := resultStack(res.Stack)
	if err != nil {
		return nil, err
	}
	r := ton.RunMethodResult{Mode: q.Mode, ID: q.ID, ShardBlock: v.at.shard.id, ExitCode: int32(res.ExitCode)}
	if q.Mode&1 != 0 {
		r.ShardProof, r.Proof = v.shardProof, v.proof
	}
	if q.Mode&2 != 0 {
		if r.StateProof, err = prove(v.account.Account, everything); err != nil {
			return nil, err
		}
	}
	if q.Mode&4 != 0 {
		r.Result = out
	}
	return r, nil
}

// methodStack holds the caller's parameters, first below, then the method's id.
func methodStack(q ton.RunSmcMethod) (*vm.Stack, error) {
	stack := vm.NewStack()
	var params []any
	if len(q.Params) > 0 {
		root, err := cell.FromBOC(q.Params)
		if err != nil {
			return nil, err
		}
		var in tlb.Stack
		if err := tlb.Parse(&in, root); err != nil {
			return nil, err
		}
		for in.Depth() > 0 {
			p, err := in.Pop()
			if err != nil {
				return nil, err
			}
			params = append(params, p)
		}
	}
	for i := len(params) - 1; i >= 0; i-- {
		if err := stack.PushHostValue(params[i]); err != nil {
			return nil, err
		}
	}
	return stack, stack.PushAny(new(big.Int).SetUint64(q.MethodID))
}

func resultStack(stack *vm.Stack) (*cell.Cell, error) {
	var values []any
	for stack.Len() > 0 {
		v, err := stack.PopAny()
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	var out tlb.Stack
	for i := len(values) - 1; i >= 0; i-- {
		out.Push(values[i])
	}
	return out.ToCell()
}

// registers is c7 as a liteserver sets it for a get-method.
func (c *Chain) registers(v *view, state *tlb.AccountState) (tuple.Tuple, error) {
	b := v.at.master
	ctx, err := c.network.prepared.NewBlockContext(tvm.BlockOptions{Now: b.time, GlobalID: c.network.globalID})
	if err != nil {
		return tuple.Tuple{}, err
	}
	config, _ := ctx.UnpackedConfig()
	self, err := cell.BeginCell().MustStoreAddr(toTON(v.addr)).EndCell().BeginParse()
	if err != nil {
		return tuple.Tuple{}, err
	}
	zero, lt := big.NewInt(0), new(big.Int).SetUint64(b.endLT)
	noValue := tuple.NewTupleValue(zero, nil)
	return tuple.NewTupleValue(tuple.NewTupleValue(
		big.NewInt(0x076ef1ea), zero, zero, big.NewInt(int64(b.time)), lt, lt, zero,
		tuple.NewTupleValue(state.Balance.Nano(), nil), self, c.network.config, state.StateInit.Code,
		noValue, zero, nil, config, zero, nil, nil,
	)), nil
}
