package plc

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"

	"rdpp/rdpp/history"
)

// Namespace is that of the server's nodes.
const Namespace = "urn:rdpp"

// opcuaServer is a server of OPC UA that has Nodes.
type opcuaServer struct {
	server *server.Server
	nodes  []*server.VariableNode // as Nodes has them
}

// Node is a variable that the server has.
type Node struct {
	Name string           // as in ns=2;s=rdpp.Name
	Help string           // what it is
	kind ua.NodeID        // of the data
	of   func(*State) any // its value, nil where there is none
}

// Nodes are the variables that the server has. Before the first verdict those that are about it have the status
// BadWaitingForInitialData, and where a verdict has no such value, BadNoData. Their source time is that of the verdict.
var Nodes = []Node{
	{"Record", "its number in the history, which tells verdicts apart", ua.DataTypeIDInt64, func(s *State) any { return s.Last.ID }},
	{"Time", "of the verdict", ua.DataTypeIDDateTime, func(s *State) any { return s.Last.Time.UTC() }},
	{"Verdict", "good, anomalous, or broken where the image could not be judged", ua.DataTypeIDString, func(s *State) any { return string(s.Last.Verdict) }},
	{"Reject", "the part is to be sorted out: the verdict is not good", ua.DataTypeIDBoolean, func(s *State) any { return s.Rejected() }},
	{"Score", "of the image", ua.DataTypeIDDouble, func(s *State) any { return ofJudged(s, s.Last.Score) }},
	{"Threshold", "above which a score is anomalous", ua.DataTypeIDDouble, func(s *State) any { return ofJudged(s, s.Last.Threshold) }},
	{"PValue", "how rare such a score is among good images", ua.DataTypeIDDouble, func(s *State) any {
		if s.Last.PValue == nil {
			return nil
		}
		return *s.Last.PValue
	}},
	{"Regions", "how many are outlined", ua.DataTypeIDInt32, func(s *State) any { return ofJudged(s, int32(len(s.Last.Regions))) }},
	{"Image", "its name", ua.DataTypeIDString, func(s *State) any { return strings.ToValidUTF8(s.Last.Image, "\ufffd") }},
	{"Model", "its category", ua.DataTypeIDString, func(s *State) any { return s.Last.Model }},
	{"Images", "judged since the program began", ua.DataTypeIDInt64, func(s *State) any { return s.Images }},
	{"Anomalous", "of these", ua.DataTypeIDInt64, func(s *State) any { return s.Anomalous }},
	{"Broken", "of these", ua.DataTypeIDInt64, func(s *State) any { return s.Broken }},
}

// counters are how many of the last of Nodes are known before there is a verdict.
const counters = 3

func ofJudged[T any](s *State, value T) any {
	if s.Last.Verdict == history.Broken {
		return nil
	}
	return value
}

// open makes the server, which is not listening yet.
func (o *opcuaServer) open(port, version string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	// Clients that ask for no encryption do not look at the certificate, which the server has to have.
	dir, err := os.MkdirTemp("", "rdpp-opcua-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := certify(name, cert, key); err != nil {
		return err
	}
	url := "opc.tcp://" + net.JoinHostPort(name, port)
	o.server, err = server.New(ua.ApplicationDescription{ApplicationURI: "urn:" + name + ":rdpp", ProductURI: Namespace,
		ApplicationName: ua.NewLocalizedText("rdpp", "en"), ApplicationType: ua.ApplicationTypeServer, DiscoveryURLs: []string{url}}, cert, key, url,
		server.WithAnonymousIdentity(true), server.WithSecurityPolicyNone(true), server.WithInsecureSkipVerify(), server.WithServerDiagnostics(false),
		server.WithMaxSessionCount(100), server.WithMaxSubscriptionCount(100), server.WithTransportLimits(64<<10, 1<<20, 64),
		server.WithBuildInfo(ua.BuildInfo{ProductURI: Namespace, ProductName: "rdpp", SoftwareVersion: version}))
	if err != nil {
		return err
	}
	space := o.server.NamespaceManager()
	ns := space.Add(Namespace)
	object := ua.NodeIDString{NamespaceIndex: ns, ID: "rdpp"}
	below := func(kind, parent, definition ua.NodeID) []ua.Reference {
		return []ua.Reference{{ReferenceTypeID: kind, IsInverse: true, TargetID: ua.ExpandedNodeID{NodeID: parent}},
			{ReferenceTypeID: ua.ReferenceTypeIDHasTypeDefinition, TargetID: ua.ExpandedNodeID{NodeID: definition}}}
	}
	all := []server.Node{server.NewObjectNode(o.server, object, ua.QualifiedName{NamespaceIndex: ns, Name: "rdpp"}, ua.NewLocalizedText("rdpp", "en"),
		ua.NewLocalizedText("the last verdict", "en"), nil, below(ua.ReferenceTypeIDOrganizes, ua.ObjectIDObjectsFolder, ua.ObjectTypeIDBaseObjectType), 0)}
	for _, n := range Nodes {
		node := server.NewVariableNode(o.server, ua.NodeIDString{NamespaceIndex: ns, ID: "rdpp." + n.Name}, ua.QualifiedName{NamespaceIndex: ns, Name: n.Name},
			ua.NewLocalizedText(n.Name, "en"), ua.NewLocalizedText(n.Help, "en"), nil,
			below(ua.ReferenceTypeIDHasComponent, object, ua.VariableTypeIDBaseDataVariableType), ua.DataValue{}, n.kind, ua.ValueRankScalar, nil,
			ua.AccessLevelsCurrentRead, 0, false, nil)
		o.nodes, all = append(o.nodes, node), append(all, node)
	}
	o.show(State{})
	return space.AddNodes(all...)
}

// show sets the nodes.
func (o *opcuaServer) show(s State) {
	now := time.Now()
	for i, n := range Nodes {
		value, status, at := n.of(&s), ua.Good, s.Last.Time
		switch {
		case s.Last.ID == 0 && i < len(Nodes)-counters:
			value, status, at = nil, ua.BadWaitingForInitialData, now
		case s.Last.ID == 0:
			at = now
		case value == nil:
			status = ua.BadNoData
		}
		o.nodes[i].SetValue(ua.NewDataValue(value, status, at.UTC(), 0, now.UTC(), 0))
	}
}

// certify makes a key and a certificate that it has signed itself.
func certify(name, certFile, keyFile string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	now := time.Now()
	c := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "rdpp"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.AddDate(10, 0, 0), DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600))
}
