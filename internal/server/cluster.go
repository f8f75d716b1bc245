package server

import (
	"context"
	"fmt"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/redis"
)

// openCluster joins the instances that share limits, where that is configured.
func (s *Server) openCluster(ctx context.Context) error {
	c := s.current.Load().Config.Cluster
	if c.Redis == nil {
		return nil
	}
	o := redis.Options{
		Addresses: c.Redis.Addresses, Username: c.Redis.Username, Password: c.Redis.Password,
		SentinelMaster: c.Redis.SentinelMaster, Prefix: c.Redis.Prefix, Timeout: c.Redis.Timeout,
		Mode: c.Mode, OnError: c.Error, Instances: c.Size, Clock: s.clock,
		Changed: func(err error) {
			if err != nil {
				s.log.Warn("the cluster's store is away, deciding without it", "on_error", string(c.Error), "err", err)
				return
			}
			s.log.Info("the cluster's store is back")
		},
		Corrupt: func(key string, err error) {
			s.log.Error("a value in the cluster's store cannot be meant: delete it if nobody knows why", "key", key, "err", err)
		},
	}
	if t := c.Redis.TLS; t != nil {
		var err error
		if o.TLS, err = t.Config(); err != nil {
			return fmt.Errorf("cluster.redis.tls: %w", err)
		}
	}
	cluster, err := redis.Open(ctx, o)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	s.cluster = cluster
	s.opens(cluster.Close)
	return nil
}

// taker is what decides about limits, nil where they are this instance's alone.
func (s *Server) taker() limits.Taker {
	if s.cluster == nil {
		return nil
	}
	return s.cluster
}
