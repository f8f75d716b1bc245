package consumers

// Index is index for the tests of this package.
type Index struct{ x index[string] }

func (x *Index) Insert(h uint64, v string) *Index { return &Index{x.x.insert(h, v)} }

func (x *Index) Remove(h uint64, v string) *Index {
	return &Index{x.x.remove(h, func(s *string) bool { return *s == v })}
}

func (x *Index) Find(h uint64) []string {
	found, _ := x.x.find(h)
	return found
}

func (x *Index) All() (vs []string) {
	x.x.all(func(v *string, _ string) bool { vs = append(vs, *v); return true })
	return vs
}

// Build makes an index of many entries at once.
func Build(m map[string]uint64) *Index {
	var b builder[string]
	for v, h := range m {
		b.add(h, v)
	}
	x := b.finish(func(_, _ *string, _ string) {})
	return &Index{x}
}

// SettleLater has changes leave everything to Settle, also of few consumers.
func (r *Registry) SettleLater() *Registry {
	r.arrears.atOnce = 0
	return r
}

// Piece is how many consumers Settle brings up at most.
const Piece = piece
