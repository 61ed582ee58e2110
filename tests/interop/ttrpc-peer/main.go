// The other side of hako's ttrpc: containerd's implementation, as a server and as a client of hako.test.Echo
// (tests/support/echo-service.ts). Messages are google.protobuf wrappers, so there is no generated code.
//
//	peer serve SOCKET   answers until killed; prints "ready"
//	peer call SOCKET    holds one conversation, prints one JSON line for each call
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const service = "hako.test.Echo"

// Calls that are in flight at a time, at the end of the conversation.
const parallel = 20

type (
	bytesValue  = wrapperspb.BytesValue
	stringValue = wrapperspb.StringValue
)

func unary[Request any](handle func(context.Context, *Request) (any, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		var request Request
		if err := unmarshal(&request); err != nil {
			return nil, err
		}
		return handle(ctx, &request)
	}
}

func methods() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"Echo": unary(func(_ context.Context, request *bytesValue) (any, error) { return request, nil }),
		"Fail": unary(func(_ context.Context, request *stringValue) (any, error) {
			return nil, status.Error(codes.NotFound, request.Value)
		}),
		"ReadMetadata": unary(func(ctx context.Context, request *stringValue) (any, error) {
			metadata, _ := ttrpc.GetMetadata(ctx)
			values, _ := metadata.Get(request.Value)
			return &stringValue{Value: strings.Join(values, ",")}, nil
		}),
		"Wait": unary(func(ctx context.Context, _ *emptypb.Empty) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
	}
}

func split(_ context.Context, stream ttrpc.StreamServer) (any, error) {
	var request bytesValue
	if err := stream.RecvMsg(&request); err != nil {
		return nil, err
	}
	for _, letter := range request.Value {
		if err := stream.SendMsg(&bytesValue{Value: []byte{letter}}); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func join(_ context.Context, stream ttrpc.StreamServer) (any, error) {
	joined := &bytesValue{}
	for {
		var request bytesValue
		if err := stream.RecvMsg(&request); errors.Is(err, io.EOF) {
			return joined, nil
		} else if err != nil {
			return nil, err
		}
		joined.Value = append(joined.Value, request.Value...)
	}
}

func chat(_ context.Context, stream ttrpc.StreamServer) (any, error) {
	for {
		var request bytesValue
		if err := stream.RecvMsg(&request); errors.Is(err, io.EOF) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		if len(request.Value) == 0 {
			return nil, status.Error(codes.Aborted, "An empty message")
		}
		if err := stream.SendMsg(&request); err != nil {
			return nil, err
		}
	}
}

func serve(path string) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	server.RegisterService(service, &ttrpc.ServiceDesc{
		Methods: methods(),
		Streams: map[string]ttrpc.Stream{
			"Split": {Handler: split, StreamingServer: true},
			"Join":  {Handler: join, StreamingClient: true},
			"Chat":  {Handler: chat, StreamingClient: true, StreamingServer: true},
		},
	})
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return server.Serve(context.Background(), listener)
}

// What came of one call.
type result struct {
	Call     string   `json:"call"`
	Messages []string `json:"messages"`
	Code     string   `json:"code"`
	Text     string   `json:"text,omitempty"`
}

type conversation struct {
	client  *ttrpc.Client
	results []result
	mutex   sync.Mutex
}

func (c *conversation) add(call string, messages []string, err error) {
	outcome := result{Call: call, Messages: messages, Code: status.Code(err).String()}
	if errors.Is(err, context.DeadlineExceeded) {
		outcome.Code = codes.DeadlineExceeded.String()
	}
	if err != nil && outcome.Code != codes.DeadlineExceeded.String() {
		outcome.Text = status.Convert(err).Message()
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.results = append(c.results, outcome)
}

func (c *conversation) call(ctx context.Context, name, service, method string, request, response proto.Message) {
	err := c.client.Call(ctx, service, method, request, response)
	var messages []string
	if err == nil {
		switch value := response.(type) {
		case *bytesValue:
			messages = append(messages, string(value.Value))
		case *stringValue:
			messages = append(messages, value.Value)
		}
	}
	c.add(name, messages, err)
}

func (c *conversation) stream(name, method string, desc *ttrpc.StreamDesc, request any, sends ...string) {
	ctx := context.Background()
	stream, err := c.client.NewStream(ctx, desc, service, method, request)
	if err != nil {
		c.add(name, nil, err)
		return
	}
	for _, text := range sends {
		if err := stream.SendMsg(&bytesValue{Value: []byte(text)}); err != nil {
			c.add(name, nil, err)
			return
		}
	}
	if desc.StreamingClient {
		if err := stream.CloseSend(); err != nil {
			c.add(name, nil, err)
			return
		}
	}
	var messages []string
	for {
		var response bytesValue
		err := stream.RecvMsg(&response)
		if errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			messages = append(messages, string(response.Value))
			if desc.StreamingServer {
				continue
			}
		}
		c.add(name, messages, err)
		return
	}
}

func call(path string) error {
	connection, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	c := &conversation{client: ttrpc.NewClient(connection)}
	defer c.client.Close()
	ctx := context.Background()
	long := strings.Repeat("0123456789abcdef", 200)
	c.call(ctx, "echo", service, "Echo", &bytesValue{Value: []byte("hello")}, &bytesValue{})
	c.call(ctx, "echo of nothing", service, "Echo", &bytesValue{}, &bytesValue{})
	c.call(ctx, "long echo", service, "Echo", &bytesValue{Value: []byte(long)}, &bytesValue{})
	c.call(ctx, "failure", service, "Fail", &stringValue{Value: "No such thing: \"ü\""}, &emptypb.Empty{})
	colors := ttrpc.WithMetadata(ctx, ttrpc.MD{"color": {"red", "blue"}})
	c.call(colors, "metadata", service, "ReadMetadata", &stringValue{Value: "color"}, &stringValue{})
	c.call(ctx, "no metadata", service, "ReadMetadata", &stringValue{Value: "color"}, &stringValue{})
	c.call(ctx, "unknown method", service, "Sing", &emptypb.Empty{}, &emptypb.Empty{})
	c.call(ctx, "unknown service", "hako.test.Absent", "Echo", &emptypb.Empty{}, &emptypb.Empty{})
	both := &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}
	c.stream("split", "Split", &ttrpc.StreamDesc{StreamingServer: true}, &bytesValue{Value: []byte("abc")})
	c.stream("split of nothing", "Split", &ttrpc.StreamDesc{StreamingServer: true}, &bytesValue{})
	c.stream("join", "Join", &ttrpc.StreamDesc{StreamingClient: true}, nil, "one ", "two ", "three")
	c.stream("join of nothing", "Join", &ttrpc.StreamDesc{StreamingClient: true}, nil)
	c.stream("chat", "Chat", both, nil, "a", "b", "c")
	c.stream("chat that fails", "Chat", both, nil, "a", "")
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	c.call(short, "deadline", service, "Wait", &emptypb.Empty{}, &emptypb.Empty{})
	var group sync.WaitGroup
	for index := range parallel {
		group.Add(1)
		go func() {
			defer group.Done()
			text := fmt.Sprintf("parallel %d", index)
			c.call(ctx, text, service, "Echo", &bytesValue{Value: []byte(text)}, &bytesValue{})
		}()
	}
	group.Wait()
	for _, outcome := range c.results {
		line, err := json.Marshal(outcome)
		if err != nil {
			return err
		}
		fmt.Println(string(line))
	}
	return nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: peer serve|call SOCKET")
		os.Exit(2)
	}
	run := map[string]func(string) error{"serve": serve, "call": call}[os.Args[1]]
	if err := run(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
