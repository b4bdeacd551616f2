package torch

// Scope keeps everything that a computation makes until Close, and the first error on the way, so that a training
// step reads as its formulas do:
//
//	var s torch.Scope
//	defer s.Close()
//	f := s.Features(teacher.Forward(x))
//	p := s.Features(projection.Forward(f))
//	if err := s.Err(); err != nil { ... }
//
// What follows an error works on closed tensors, fails too, and is ignored.
type Scope struct {
	made []interface{ Close() }
	err  error
}

// Tensor takes charge of t.
func (s *Scope) Tensor(t *Tensor, err error) *Tensor {
	s.keep(t, err)
	return t
}

// Features takes charge of f.
func (s *Scope) Features(f Features, err error) Features {
	s.keep(f, err)
	return f
}

// Two takes charge of two features, such as Split's.
func (s *Scope) Two(f, g Features, err error) (Features, Features) {
	s.keep(f, err)
	s.keep(g, nil)
	return f, g
}

// Pair takes charge of two tensors, such as LossClass's.
func (s *Scope) Pair(a, b *Tensor, err error) (*Tensor, *Tensor) {
	s.keep(a, err)
	s.keep(b, nil)
	return a, b
}

// Check notes an error.
func (s *Scope) Check(err error) { s.keep(nil, err) }

func (s *Scope) keep(made interface{ Close() }, err error) {
	if made != nil {
		s.made = append(s.made, made)
	}
	if s.err == nil {
		s.err = err
	}
}

// Err returns the first error so far.
func (s *Scope) Err() error { return s.err }

// Close closes what the scope took charge of.
func (s *Scope) Close() {
	for _, made := range s.made {
		made.Close()
	}
	s.made = nil
}
