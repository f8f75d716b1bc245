package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// A shell waits for its completions: they come soon, and not too many, or not.
const (
	completeWithin = time.Second
	completeAtMost = 100
)

// completeIDs completes the id of a consumer and then, where the verb takes one,
// the id of one of its tokens, as the server knows them.
func (r *remote) completeIDs(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	if r.ready() != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	switch len(args) {
	case 0:
		ids, err := r.ConsumerIDs(ctx, typed, completeAtMost)
		return completions(ids, err)
	case 1:
		tokens, err := r.Tokens(ctx, args[0])
		ids := make([]string, len(tokens))
		for i, t := range tokens {
			ids[i] = t.ID
		}
		return completions(ids, err)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeConsumer completes the id of a consumer only.
func (r *remote) completeConsumer(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return r.completeIDs(cmd, args, typed)
}

// completions is nothing where the server says nothing: a shell has no place for
// an error.
func completions(ids []string, err error) ([]string, cobra.ShellCompDirective) {
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// completeFlag completes a flag with one of some words.
func completeFlag(cmd *cobra.Command, flag string, words ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}
