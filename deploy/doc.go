// Package deploy holds no code: it is where what runs Tollgate elsewhere is
// kept (the image, compose, Kubernetes, Prometheus, Grafana), and its tests.
package deploy
