// Package top draws who is admitted and refused, as `tollgate top` shows it: one
// picture of a terminal's size, made of what the admin API told at two moments.
//
//	p := top.Picture{Server: "http://127.0.0.1:8080", By: top.Admitted}
//	p.Update(now, tallies)
//	_, err := os.Stdout.Write(p.Frame(top.Screen{Width: 80, Height: 24}))
//
// A frame is drawn over the one before and is written at once, so that nothing
// flickers. Nothing in it is wider or higher than the screen, and what consumers
// are called cannot steer the terminal.
package top
