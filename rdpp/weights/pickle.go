package weights

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// maxOps bounds the opcodes of one pickle, and with them the memory it can claim: every opcode makes one value at most. A tensor
// needs about 30, so this is room for 70,000 tensors.
const maxOps = 1 << 21

// The values that a pickle can make, beside nil, bool, int, float64 and string. Values that never matter are nil.
type (
	list  struct{ items []any }
	tuple []any
	dict  struct{ items []pair }
	pair  struct{ key, value any }

	// global is the name of a Python class or function.
	global string
	// storage is a named run of elements outside the pickle.
	storage struct {
		key   string
		dtype DType
		len   int // elements, as the pickle states it
	}
	// tensor is a view of a storage, as the pickle states it: nothing but the number of dimensions is checked. Offset and
	// strides count elements.
	tensor struct {
		storage       *storage
		offset        int
		shape, stride []int
	}
)

// maxDims is PyTorch's own limit.
const maxDims = 64

const (
	orderedDict      = global("collections.OrderedDict")
	rebuildTensor    = global("torch._utils._rebuild_tensor_v2")
	rebuildTensorOld = global("torch._utils._rebuild_tensor") // of PyTorch before 0.4
	rebuildParameter = global("torch._utils._rebuild_parameter")
	size             = global("torch.Size")
)

// leaves are the further names that may occur. What they make cannot hold tensors, so nil stands for it.
var leaves = map[global]bool{
	"torch.device": true, "_codecs.encode": true, "builtins.set": true, "__builtin__.set": true,
	"torch.float16": true, "torch.bfloat16": true, "torch.float32": true, "torch.float64": true, "torch.int8": true,
	"torch.uint8": true, "torch.int16": true, "torch.int32": true, "torch.int64": true, "torch.bool": true,
}

var storageTypes = map[global]DType{
	"torch.HalfStorage": F16, "torch.BFloat16Storage": BF16, "torch.FloatStorage": F32, "torch.DoubleStorage": F64,
	"torch.CharStorage": I8, "torch.ByteStorage": U8, "torch.ShortStorage": I16, "torch.IntStorage": I32,
	"torch.LongStorage": I64, "torch.BoolStorage": Bool,
}

// unpickler runs pickles of protocol 2, of which it knows the opcodes that torch.load(weights_only=True) allows and plain tensors
// need. It calls nothing: names it knows are turned into values here.
type unpickler struct {
	window   []byte  // read, and not taken yet
	behind   section // what follows it
	stack    []any
	marks    []int // heights of the stack at the open marks
	memo     map[uint32]any
	storages map[string]*storage // those met so far, by key
	budget   *budget
}

// windowSize is how many bytes of a pickle are read at once.
const windowSize = 1 << 16

func newUnpickler(from section, b *budget) *unpickler {
	return &unpickler{behind: from, storages: map[string]*storage{}, budget: b}
}

// pickleError is what unpickler panics with; run returns it.
type pickleError struct{ error }

func (u *unpickler) fail(format string, args ...any) {
	panic(pickleError{fmt.Errorf(format, args...)})
}

// run reads one pickle from the front of the input and returns its value.
func (u *unpickler) run() (value any, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case pickleError:
			err = fmt.Errorf("pickle: %w", r.error)
		default:
			panic(r)
		}
	}()
	u.stack, u.marks, u.memo = nil, nil, map[uint32]any{}
	for range maxOps {
		op := u.next(1)[0]
		if op == '.' {
			return u.pop(), nil
		}
		u.step(op)
	}
	return nil, fmt.Errorf("pickle: more than %d opcodes; save a dictionary of tensors only", maxOps)
}

// step executes one opcode.
func (u *unpickler) step(op byte) {
	switch op {
	case 0x80: // PROTO
		if version := u.next(1)[0]; version != 2 {
			u.fail("protocol %d is not supported; save it with torch.save's default pickle_protocol", version)
		}
	case 'N': // NONE
		u.push(nil)
	case 0x88: // NEWTRUE
		u.push(true)
	case 0x89: // NEWFALSE
		u.push(false)
	case 'K': // BININT1
		u.push(int(u.next(1)[0]))
	case 'M': // BININT2
		u.push(int(binary.LittleEndian.Uint16(u.next(2))))
	case 'J': // BININT
		u.push(int(int32(u.uint32())))
	case 0x8a: // LONG1
		u.push(long(u.next(int(u.next(1)[0]))))
	case 'G': // BINFLOAT
		u.push(math.Float64frombits(binary.BigEndian.Uint64(u.next(8))))
	case 'U': // SHORT_BINSTRING, which only Python 2 wrote
		u.push(u.text(int(u.next(1)[0])))
	case 'X': // BINUNICODE
		u.push(u.text(int(u.uint32())))
	case ')': // EMPTY_TUPLE
		u.push(tuple(nil))
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		items := make(tuple, op-0x84)
		for i := len(items) - 1; i >= 0; i-- {
			items[i] = u.pop()
		}
		u.push(items)
	case '(': // MARK
		u.marks = append(u.marks, len(u.stack))
	case 't': // TUPLE
		u.push(tuple(u.popMark()))
	case ']': // EMPTY_LIST
		u.push(&list{})
	case 'a': // APPEND
		item := u.pop()
		l := as[*list](u, u.top())
		l.items = append(l.items, item)
	case 'e': // APPENDS
		items := u.popMark()
		l := as[*list](u, u.top())
		l.items = append(l.items, items...)
	case '}': // EMPTY_DICT
		u.push(&dict{})
	case 's': // SETITEM
		value, key := u.pop(), u.pop()
		d := as[*dict](u, u.top())
		d.items = append(d.items, pair{key, value})
	case 'u': // SETITEMS
		items := u.popMark()
		d := as[*dict](u, u.top())
		if len(items)%2 != 0 {
			u.fail("a key without a value: %w", errDamaged)
		}
		for i := 0; i < len(items); i += 2 {
			d.items = append(d.items, pair{items[i], items[i+1]})
		}
	case 'q': // BINPUT
		u.memo[uint32(u.next(1)[0])] = u.top()
	case 'r': // LONG_BINPUT
		u.memo[u.uint32()] = u.top()
	case 'h': // BINGET
		u.get(uint32(u.next(1)[0]))
	case 'j': // LONG_BINGET
		u.get(u.uint32())
	case 'c': // GLOBAL
		u.push(u.global())
	case 'R': // REDUCE
		args := as[tuple](u, u.pop())
		u.push(u.call(as[global](u, u.pop()), args))
	case 'b': // BUILD: attributes of a dictionary, such as a state_dict's _metadata
		u.pop()
		as[*dict](u, u.top())
	case 'Q': // BINPERSID
		u.push(u.storage(as[tuple](u, u.pop())))
	default:
		u.fail("opcode %#02x is not allowed; save a dictionary of tensors only", op)
	}
}

// next takes n bytes of the input. They stay what they are.
func (u *unpickler) next(n int) []byte {
	u.ahead(n)
	taken := u.window[:n]
	u.window = u.window[n:]
	return taken
}

// ahead makes the window hold n bytes or more.
func (u *unpickler) ahead(n int) {
	missing := int64(n - len(u.window))
	if missing <= 0 {
		return
	}
	if missing > u.behind.size {
		u.fail("ends too early: %w", errDamaged)
	}
	more := min(max(missing, windowSize), u.behind.size)
	data, err := u.behind.part(0, more).read()
	if err != nil {
		u.fail("%w", err)
	}
	if len(u.window) > 0 {
		data = slices.Concat(u.window, data)
	}
	u.window, u.behind = data, u.behind.part(more, u.behind.size-more)
}

// line takes the bytes up to the next end of a line, without it.
func (u *unpickler) line() []byte {
	for {
		if end := bytes.IndexByte(u.window, '\n'); end >= 0 {
			return u.next(end + 1)[:end]
		}
		if u.behind.size == 0 || len(u.window) > windowSize {
			u.fail("ends within a name: %w", errDamaged)
		}
		u.ahead(len(u.window) + 1)
	}
}

// rest is what no pickle has taken of the input.
func (u *unpickler) rest() section {
	n := int64(len(u.window))
	return section{u.behind.from, u.behind.at - n, u.behind.size + n}
}

func (u *unpickler) uint32() uint32 { return binary.LittleEndian.Uint32(u.next(4)) }

func (u *unpickler) text(n int) string {
	b := u.next(n)
	if !utf8.Valid(b) {
		u.fail("the text %.40q is not UTF-8: %w", b, errDamaged)
	}
	return string(b)
}

// long reads a little-endian two's complement integer; nil stands for one of more than 64 bits.
func long(b []byte) any {
	if len(b) > 8 {
		return nil
	}
	var bits uint64
	for i, x := range b {
		bits |= uint64(x) << (8 * i)
	}
	shift := 64 - 8*len(b)
	return int(int64(bits<<shift) >> shift)
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

// floor is the height below which the stack belongs to an open mark.
func (u *unpickler) floor() int {
	if len(u.marks) == 0 {
		return 0
	}
	return u.marks[len(u.marks)-1]
}

// top returns the value on the stack's top.
func (u *unpickler) top() any {
	if len(u.stack) == u.floor() {
		u.fail("nothing on the stack: %w", errDamaged)
	}
	return u.stack[len(u.stack)-1]
}

func (u *unpickler) pop() any {
	v := u.top()
	u.stack = u.stack[:len(u.stack)-1]
	return v
}

// as is v, which must be a T.
func as[T any](u *unpickler, v any) T {
	t, ok := v.(T)
	if !ok {
		u.fail("a %T where a %T is due: %w", v, t, errDamaged)
	}
	return t
}

// popMark takes everything above the last mark.
func (u *unpickler) popMark() []any {
	if len(u.marks) == 0 {
		u.fail("no mark: %w", errDamaged)
	}
	items := append([]any(nil), u.stack[u.floor():]...)
	u.stack = u.stack[:u.floor()]
	u.marks = u.marks[:len(u.marks)-1]
	return items
}

func (u *unpickler) get(index uint32) {
	v, ok := u.memo[index]
	if !ok {
		u.fail("nothing was remembered as %d: %w", index, errDamaged)
	}
	u.push(v)
}

// global reads a module's and a name's line.
func (u *unpickler) global() any {
	module, name := u.line(), u.line()
	g := global(fmt.Sprintf("%s.%s", module, name))
	switch g {
	case orderedDict, rebuildTensor, rebuildTensorOld, rebuildParameter, size:
		return g
	}
	if storageTypes[g] == 0 && !leaves[g] {
		u.fail("%.80q is not allowed in a weight file (it may run code); save a dictionary of plain tensors only", string(g))
	}
	return g
}

// call is what the function or class g makes of args.
func (u *unpickler) call(g global, args tuple) any {
	switch g {
	case orderedDict:
		d := &dict{}
		if len(args) == 0 {
			return d
		}
		// Python 2 gave the items as a list of pairs.
		items := as[*list](u, args[0]).items
		u.spend(32 * len(items))
		for _, item := range items {
			kv := as[*list](u, item).items
			if len(kv) != 2 {
				u.fail("an item of %d values: %w", len(kv), errDamaged)
			}
			d.items = append(d.items, pair{kv[0], kv[1]})
		}
		return d
	case rebuildTensor, rebuildTensorOld: // storage, offset, shape, stride and things that do not matter
		u.want(g, args, 4)
		return &tensor{as[*storage](u, args[0]), as[int](u, args[1]), u.ints(args[2]), u.ints(args[3])}
	case rebuildParameter:
		u.want(g, args, 1)
		return as[*tensor](u, args[0])
	case size:
		u.want(g, args, 1)
		return as[tuple](u, args[0])
	}
	if !leaves[g] {
		u.fail("%q is called: %w", string(g), errDamaged)
	}
	return nil
}

func (u *unpickler) want(g global, args tuple, n int) {
	if len(args) < n {
		u.fail("%s with %d arguments: %w", g, len(args), errDamaged)
	}
}

func (u *unpickler) spend(bytes int) {
	if err := u.budget.spend(bytes); err != nil {
		u.fail("%w", err)
	}
}

func (u *unpickler) ints(v any) []int {
	items := as[tuple](u, v)
	if len(items) > maxDims {
		u.fail("a tensor of %d dimensions: %w", len(items), errDamaged)
	}
	ints := make([]int, len(items))
	for i, item := range items {
		ints[i] = as[int](u, item)
	}
	return ints
}

// storage reads the id ("storage", type, key, device, elements), to which the older format adds a view of a part, or None.
func (u *unpickler) storage(id tuple) *storage {
	u.want("a persistent id", id, 5)
	if kind := as[string](u, id[0]); kind != "storage" {
		u.fail("a persistent id of kind %.20q: %w", kind, errDamaged)
	}
	if len(id) > 5 && id[5] != nil {
		u.fail("a view of a part of a storage is not supported; save clones of the tensors")
	}
	s := &storage{as[string](u, id[2]), storageTypes[as[global](u, id[1])], as[int](u, id[4])}
	if s.dtype == 0 {
		u.fail("%q is no type of storage: %w", string(id[1].(global)), errDamaged)
	}
	if known := u.storages[s.key]; known == nil {
		u.storages[s.key] = s
	} else if *known != *s {
		u.fail("storage %.20q is both %d of %s and %d of %s: %w", s.key, known.len, known.dtype, s.len, s.dtype, errDamaged)
	}
	return u.storages[s.key]
}
